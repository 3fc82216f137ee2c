"""A process that is started again whenever it ends before its work is done, as systemd would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

AGAIN_S = 0.1
"""The pause before the next start: a unit's RestartSec, at the pace of these runs."""

END_S = 20.0
"""Time to end in after SIGTERM."""


@dataclass(slots=True)
class KeptProcess:
    """One program, restarted until it ends with status 0 or is told to stop.

    Attributes:
        name: as in reports.
        command: what is run.
        environment: variables beside those of this process.
        log: takes all that it says.
        ends: how often it ended with each status; negative: the signal.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ends: Counter[int] = field(default_factory=Counter)
    _process: asyncio.subprocess.Process | None = None
    _is_stopping: bool = False

    async def keep(self) -> None:
        """Run it, again and again. Returns when it has ended with status 0, or was told to stop."""
        while not self._is_stopping:
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment},
                )
            status = await self._process.wait()
            self.ends[status] += 1
            if status == 0:
                return
            await asyncio.sleep(AGAIN_S)

    def kill(self) -> None:
        """SIGKILL, if it runs; it is then started again."""
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        """End it in an orderly way, or by force if that takes too long, and start it no more."""
        self._is_stopping = True
        self._signal(signal.SIGTERM)
        if self._process is None:
            return
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except asyncio.TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
