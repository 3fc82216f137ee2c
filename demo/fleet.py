"""Real processes for the demo: one aggregator and its boards, and what they print, as data."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
SERVER_START_S = 30.0
Event = Mapping[str, Any]


class DemoError(Exception):
    """Something that the demo promised did not happen."""


@dataclass(frozen=True, slots=True)
class BoardSpec:
    """A board to play: its name, the data that it holds, the memory it is given, what a round may move over its
    network ("" for any number of bytes), and the words that start a client: this environment's, or another one's."""

    name: str
    data: str
    memory: str
    round_traffic: str = ""
    program: tuple[str, ...] = (str(BIN / "edge-client"),)


@dataclass(slots=True)
class BoardView:
    """A board as its JSON lines have shown it so far."""

    spec: BoardSpec
    state: str = "starting"
    plan: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0

    def take(self, event: Event) -> None:
        kind = str(event.get("event", ""))
        if kind == "plan":
            self.plan = dict(event)
        elif kind in ("error", "finished"):
            self.state = kind
        else:
            self.state = str(event.get("phase", kind))
        self.last.update({key: value for key, value in event.items() if value is not None})


class Board:
    """One `edge-client join` process, in a process group of its own so that a kill takes its worker too."""

    def __init__(self, spec: BoardSpec, url: str, token: str, folder: Path, on_event: Callable[[Board, Event], None]):
        self.spec, self.url, self.token, self.folder = spec, url, token, folder
        self.view = BoardView(spec)
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = [
            *self.spec.program,
            *("join", "--server", self.url, "--token", self.token, "--name", self.spec.name),
            *("--data", self.spec.data, "--model", "builtin"),
            *(
                "--memory",
                self.spec.memory,
                "--state",
                str(self.folder),
                "--threads",
                "1",
                "--eval-examples",
                "48",
                "--json",
            ),
            *(("--round-traffic", self.spec.round_traffic) if self.spec.round_traffic else ()),
        ]
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True, limit=1 << 20
        )
        log.close()

    async def follow(self) -> int:
        """Read the process's lines until it ends. Returns its exit status (negative: the signal that ended it)."""
        process = self._process
        if process is None or process.stdout is None:
            raise DemoError(f"{self.spec.name} was not started")
        async for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a stray line is not an event
            self.view.take(event)
            self._on_event(self, event)
        return await process.wait()

    def kill(self) -> None:
        """SIGKILL to the client and its training worker at once, as a power cut would."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.kill()
            await self._process.wait()


class Aggregator:
    """One `aggregator serve` process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: asyncio.subprocess.Process | None = None

    async def init(self, boards: int, settings: Mapping[str, str]) -> None:
        """`aggregator init` with the demo's settings (`section.key` to value)."""
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        count = str(boards)
        await run_command("aggregator", "init", str(self.folder), "--model", "builtin", "--min-devices", count, *pairs)

    async def start(self) -> None:
        log = (self.folder / "serve.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            *(str(BIN / "aggregator"), "serve", str(self.folder), "--port", str(self.port), "--tls", "off"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + SERVER_START_S
        while not await answers(self.port):
            if self._process.returncode is not None or time.monotonic() > deadline:
                raise DemoError(f"the aggregator did not start: see {self.folder / 'serve.log'}")
            await asyncio.sleep(0.1)

    @property
    def pid(self) -> int | None:
        """The running server's process, None where it is not running."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def token(self) -> str:
        """A join token for as many boards as anybody plays here."""
        create = ("aggregator", "token", "create", str(self.folder), "--uses", "100", "--json")
        return (await run_command(*create, key="token")).strip()

    async def status(self) -> dict[str, Any]:
        answer = json.loads(await run_command("aggregator", "status", str(self.folder), "--json"))
        if not isinstance(answer, dict):
            raise DemoError("aggregator status gave no object")
        return answer

    async def export(self, out: Path) -> None:
        await run_command("aggregator", "export", str(self.folder), "--out", str(out))

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 10)
            except asyncio.TimeoutError:
                self._process.kill()
                await self._process.wait()


async def run_command(program: str, *arguments: str, key: str = "") -> str:
    """A command's standard output; with `key`, that field of the JSON object that it printed."""
    process = await asyncio.create_subprocess_exec(
        str(BIN / program), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode != 0:
        raise DemoError(f"{program} {' '.join(arguments)}: {err.decode().strip() or f'exit {process.returncode}'}")
    return str(json.loads(out)[key]) if key else out.decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
