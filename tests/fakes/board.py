"""A board that trains without torch, beside the fake server."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_client.agent.console import Console
from edge_client.agent.enrolment import prepare_identity
from edge_client.agent.join import Client, Surroundings, open_client
from edge_client.agent.manners.leave_to_train import ALWAYS, Rules
from edge_client.agent.preflight import DataSummary, Preflight, Probes
from edge_client.agent.settings import JoinSettings
from edge_client.host.board import Board
from edge_client.network.retry import Backoff
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits
from edge_client.state.folder import StateFolder
from edge_client.worker.process import WorkerProcess
from tests.fakes.server import TOKEN, FakeServer


@dataclass
class FakeBoard:
    """Builds clients on one state folder, as restarts of one board do."""

    server: FakeServer
    folder: Path
    slept_s: list[float] = field(default_factory=list)
    output: io.StringIO = field(default_factory=io.StringIO)
    worker_flags: tuple[str, ...] = ()
    watch_every_s: float = 15.0
    summary: DataSummary = field(default_factory=lambda: DataSummary(10, 2, 0, ""))
    cache_bytes: int = 1 << 20
    memory_bytes: int = 2 << 30  # at the start
    memory_left_bytes: int = 2 << 30  # when it ran short
    limits: RoundLimits = NO_LIMITS
    root: Path = Path("/nowhere")  # no /sys: what the machine of the tests tells is not this board's
    rules: Rules = ALWAYS
    look_every_s: float = 5.0
    now_unix_s: Callable[[], float] = time.time

    def settings(self, **changes: Any) -> JoinSettings:
        values: dict[str, Any] = {
            "server": self.server.url,
            "token": TOKEN,
            "fingerprint": "",
            "data": "data.jsonl",
            "model": "",
            "memory": "",
            "state": self.folder,
            "name": "board-1",
            "wait": False,
            "threads": 1,
        }
        return JoinSettings(**{**values, **changes})

    def probes(self) -> Probes:
        """A preflight's looks at this board, without data, packages and a child process."""
        return Probes(packages=lambda: None, fork=lambda call, kind: self.summary)  # type: ignore[arg-type]

    def backoff(self, **arguments: Any) -> Backoff:
        async def sleep(delay_s: float) -> None:
            self.slept_s.append(delay_s)
            await asyncio.sleep(0)

        return Backoff(**arguments, sleep=sleep)

    def worker(self) -> WorkerProcess:
        script = Path(__file__).with_name("worker.py")
        return WorkerProcess([sys.executable, str(script), *self.worker_flags])

    @asynccontextmanager
    async def client(self, **changes: Any) -> AsyncIterator[Client]:
        settings = self.settings(**changes)
        state = StateFolder(self.folder)
        state.lock()
        try:
            board = Board(self.memory_bytes, "as the test says", 2, "x86_64", False)
            identity = prepare_identity(state, settings)
            checked = Preflight(board, self.summary, state, identity, self.cache_bytes, self.limits, self.rules)
            surroundings = Surroundings(
                new_backoff=self.backoff,
                sleep=lambda delay_s: self.client_sleep(delay_s),
                watch_every_s=self.watch_every_s,
                measure=lambda: Board(self.memory_left_bytes, "as is left", 2, "x86_64", False),
                now_unix_s=self.now_unix_s,
                look_every_s=self.look_every_s,
                root=self.root,
            )
            console = Console(as_json=True, stream=self.output)
            async with open_client(settings, checked, console, self.worker(), surroundings) as client:
                yield client
        finally:
            state.unlock()

    def __post_init__(self) -> None:
        self.client_sleep: Callable[[float], Awaitable[None]] = self.short_sleep

    async def join(self, **changes: Any) -> None:
        """One client from start to end."""
        async with self.client(**changes) as client:
            await client.run_to_end()

    async def short_sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await asyncio.sleep(0)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of one kind that the console printed."""
        lines = [json.loads(line) for line in self.output.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]
