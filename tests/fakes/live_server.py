"""A real server in the test's process that keeps its port when it is started again, and boards that work for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestServer, unused_port

from aggregator.http.app import make_app
from aggregator.report.status import describe
from aggregator.run.setup import Opened, open_run
from aggregator.store.folder import Folder
from aggregator.store.secrets import secret_hash
from edge_client.network.retry import Backoff
from tests.fakes.board import FakeBoard
from tests.fakes.server import FakeServer

SOON_S = 0.03
"""A pause between two looks, and what is left of a client's pauses."""


class LiveServer:
    """The server of one folder after the other, always at one address."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self.port = folder, unused_port()
        self.opened: Opened | None = None
        self._listening: TestServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return self.folder.secret(self.folder.join_token)

    @property
    def run(self) -> Any:
        assert self.opened is not None
        return self.opened.run

    async def start(self) -> None:
        self.opened = open_run(self.folder, time.monotonic)
        app = make_app(self.opened, secret_hash(self.folder.secret(self.folder.operator_token)))
        self._listening = TestServer(app, port=self.port)
        await self._listening.start_server(auto_decompress=False)

    async def stop(self) -> None:
        if self._listening is None or self.opened is None:
            return
        await self._listening.close()
        self.opened.store.close()
        self._listening = self.opened = None

    async def until(self, is_so: Callable[[Any], bool], within_s: float = 30.0) -> None:
        """Wait until the run is so. Raises TimeoutError with the run's status."""
        end = time.monotonic() + within_s
        while not is_so(self.run):
            if time.monotonic() > end:
                raise TimeoutError(str(describe(self.run)))
            await asyncio.sleep(SOON_S)

    def board(self, name: str, folder: Path) -> LiveBoard:
        """A board that is new to this server."""
        return LiveBoard(FakeServer(base=folder, url=self.url), folder / name, name=name, token=self.token)


class LiveBoard(FakeBoard):
    """A board whose pauses are short, and real."""

    def __init__(self, server: FakeServer, folder: Path, *, name: str, token: str) -> None:
        super().__init__(server, folder, watch_every_s=SOON_S)
        self.name, self.token = name, token

    def settings(self, **changes: Any) -> Any:
        return super().settings(**{"name": self.name, "token": self.token, **changes})

    def backoff(self, **arguments: Any) -> Backoff:
        async def sleep(delay_s: float) -> None:
            self.slept_s.append(delay_s)
            await asyncio.sleep(min(delay_s, SOON_S))

        return Backoff(**arguments, sleep=sleep)

    async def _short_sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await asyncio.sleep(min(delay_s, SOON_S))
