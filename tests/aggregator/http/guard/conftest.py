"""A server behind its own door: the listener that `aggregator serve` has, on a port of the loopback address."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiohttp import web

from aggregator.http.addresses import listening_sockets
from aggregator.http.app import make_app
from aggregator.http.app_keys import GUARD
from aggregator.http.guard import connection
from aggregator.http.guard.guard import Guard
from aggregator.http.guard.limits import Limits
from aggregator.http.server import serving
from aggregator.run.setup import Opened, open_run
from aggregator.store.secrets import secret_hash
from tests.fakes.clock import FakeClock
from wire.codec import CONTENT_TYPE, decode, encode
from wire.messages import Enrol, Enrolled, Refusal

ENROLS_MANY = "a-token-for-a-hundred-boards"

ANSWERED_S = 5.0
"""An answer that takes longer is none."""


@dataclass
class Answer:
    """An answer as it came: whether the connection was closed behind it, and what stood before it."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    @property
    def refusal(self) -> Refusal:
        return decode(self.body, Refusal)


@dataclass
class Caller:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next answer; one with status 0 where the connection ends without a word."""
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), ANSWERED_S)
        except (asyncio.IncompleteReadError, ConnectionError):
            return Answer(0, {}, b"", True)
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        length = 0 if headers.get("transfer-encoding") else int(headers.get("content-length", "0"))
        body = await asyncio.wait_for(self.reader.readexactly(length), ANSWERED_S) if length else b""
        return Answer(int(line.split()[1]), headers, body, headers.get("connection", "") == "close")

    async def is_closed(self) -> bool:
        """Whether the server ends the connection, within ANSWERED_S."""
        try:
            return not await asyncio.wait_for(self.reader.read(), ANSWERED_S)
        except ConnectionError:
            return True
        except asyncio.TimeoutError:
            return False

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@dataclass
class Door:
    """A running server."""

    app: web.Application
    opened: Opened
    port: int
    stack: AsyncExitStack

    @property
    def guard(self) -> Guard:
        return self.app[GUARD]

    @property
    def token(self) -> str:
        return ENROLS_MANY

    @property
    def operator(self) -> str:
        return self.opened.folder.secret(self.opened.folder.operator_token)

    async def call(self) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port))
        self.stack.push_async_callback(caller.close)
        return caller

    async def say(self, data: bytes) -> Answer:
        """The answer to these bytes on a connection of their own."""
        caller = await self.call()
        await caller.send(data)
        answer = await caller.answer()
        await caller.close()
        return answer

    async def settle(self, count: int) -> None:
        """Wait until the server has so many connections."""
        for _ in range(int(ANSWERED_S / 0.005)):
            if len(self.guard.guests) == count:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{len(self.guard.guests)} connections, not {count}")

    async def enrol(self, number: int = 1) -> str:
        """The credential of a new board."""
        answer = await self.say(request("POST", "/v1/devices", enrolment(self.token, number)))
        assert answer.status == 200, answer.refusal
        return decode(answer.body, Enrolled).credential

    def count(self, kind: str) -> int:
        """How often a nuisance of this kind was turned away."""
        return {str(fact["kind"]): int(fact["count"]) for fact in self.guard.nuisances.totals()}[kind]


def request(method: str, path: str, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    """The bytes of a request; `length` says how long the body is said to be. Headers have _ for -."""
    size = len(body) if length is None else length
    named = {"Host": "x", "Content-Type": CONTENT_TYPE, **({"Content-Length": str(size)} if size else {})}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def enrolment(token: str, number: int = 1) -> bytes:
    return encode(
        Enrol(protocol=1, token=token, install_id=f"{number:032x}", name=f"board-{number}", client_version="1")
    )


@pytest.fixture
async def open_door(
    make_folder: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    """Start a server with other limits than usual; all end with the test."""
    monkeypatch.setattr(connection, "LINGER_S", 0.05)
    async with AsyncExitStack() as stack:

        async def begin(
            change: Callable[[Opened], Opened] = lambda opened: opened, tls: ssl.SSLContext | None = None, **limits: Any
        ) -> Door:
            opened = change(open_run(make_folder(), clock))
            stack.callback(opened.store.close)
            opened.store.add_token(secret_hash(ENROLS_MANY), "of the tests", uses=100)
            operator = secret_hash(opened.folder.secret(opened.folder.operator_token))
            app = make_app(opened, operator, limits=replace(Limits(), **limits))
            port = await stack.enter_async_context(serving(app, listening_sockets("127.0.0.1", 0), tls))
            return Door(app, opened, port, stack)

        yield begin


@pytest.fixture
async def door(open_door: Any) -> Door:
    server: Door = await open_door()
    return server
