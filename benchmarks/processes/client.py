"""A board as a process of its own: `edge-client join`, and the events that it tells."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from demo.fleet import BIN

STOP_S = 30.0
"""Longer than a client waits for its worker to save a training."""


class ClientProcess:
    """One `edge-client join` with `--json`. `tell` takes each event and when it came. Use as `async with`."""

    def __init__(
        self, folder: Path, flags: Mapping[str, str], tell: Callable[[float, dict[str, Any]], None] = lambda at, e: None
    ) -> None:
        self._folder, self._flags, self._tell = folder, flags, tell
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ClientProcess:
        pairs = [part for pair in {**self._flags, "--state": str(self._folder)}.items() for part in pair]
        command = [str(BIN / "edge-client"), "join", "--json", *pairs]
        self._process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=1 << 20
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._reading is not None
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self.ended(), STOP_S)
        except asyncio.TimeoutError:
            self._process.kill()
            await self.ended()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def ended(self) -> int:
        """Its exit status, once it has ended and all that it told was read."""
        assert self._process is not None and self._reading is not None
        await self._reading
        return await self._process.wait()

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            self._tell(time.monotonic(), json.loads(line))
