"""Nuisances over real sockets, each until its time is up; a process of its own, so that honest calls are timed alone.

python -m benchmarks.load.nuisances silent 127.0.0.1 8470 --seconds 10

`--elsewhere` is the control: the same at a port of this very process, which turns everybody away as the server does.
What others feel of it then is what it costs them to share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgpack

from aggregator.http.guard.connection import LINGER_S
from aggregator.http.guard.listener import BACKLOG
from wire.checks import basis_rank
from wire.codec import CONTENT_TYPE, decode
from wire.run import RunInfo

PAUSE_S = 0.2
"""Before a connection that was closed is opened again."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server, and a device's credential for those nuisances that have one."""

    host: str
    port: int
    credential: str = ""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, closed with the block."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    def head(self, method: str, path: str, length: int = 0) -> bytes:
        """The bytes of a request's header."""
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Type: {CONTENT_TYPE}"]
        lines += [f"Content-Length: {length}"] if length else []
        lines += [f"Authorization: Bearer {self.credential}"] if self.credential else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


Session = Callable[[Target, int], Awaitable[None]]
"""One connection of a nuisance, from its opening to its end; the number tells connections apart."""


async def silent(target: Target, _: int) -> None:
    """Says nothing."""
    async with target.connection() as (reader, _writer):
        await _until_closed(reader)


async def junk(target: Target, number: int) -> None:
    """Posts 250 kB that are no message."""
    async with target.connection() as (reader, writer):
        writer.write(target.head("POST", "/v1/devices", 250_000) + random.Random(number).randbytes(250_000))
        await _until_closed(reader)


async def enrolments(target: Target, _: int) -> None:
    """Posts well-formed enrolments of 260 kB, one after the other."""
    fields = {"protocol": 1, "token": "x", "install_id": "0" * 32, "name": "n", "client_version": "1"}
    body: bytes = msgpack.packb({**fields, "more": [[i % 100] * 125 for i in range(2000)]})
    async with target.connection() as (reader, writer):
        while not reader.at_eof():
            writer.write(target.head("POST", "/v1/devices", len(body)) + body)
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")


async def trickles(target: Target, _: int) -> None:
    """Posts a body a byte a second."""
    async with target.connection() as (reader, writer):
        writer.write(target.head("POST", "/v1/devices", 4000))
        while not reader.at_eof():
            writer.write(b"\x85")
            await writer.drain()
            await asyncio.sleep(1)


async def garbage(target: Target, number: int) -> None:
    """Speaks anything but HTTP, or what only begins like it."""
    async with target.connection() as (reader, writer):
        begins = (
            b"",
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/7\r\n",
            b"GET /v1/run HTTP/1.1\r\nHost: x\r\nContent-Length: ",
        )
        writer.write(begins[number % len(begins)] + random.Random(number).randbytes(200) + b"\r\n\r\n")
        await _until_closed(reader)


async def logins(target: Target, number: int) -> None:
    """Guesses credentials."""
    guess = Target(target.host, target.port, f"guess-{number}")
    async with target.connection() as (reader, writer):
        while not reader.at_eof():
            writer.write(guess.head("GET", "/v1/run"))
            await reader.readuntil(b"\r\n\r\n")


async def events(target: Target, _: int) -> None:
    """A device that tells one event after the other."""
    body: bytes = msgpack.packb(
        {"kind": "event", "round": 0, "version": 0, "text": f"event of {os.getpid()} " + "x" * 1900, "values": {}}
    )
    async with target.connection() as (reader, writer):
        while not reader.at_eof():
            writer.write(target.head("POST", "/v1/reports", len(body)) + body)
            await reader.readuntil(b"\r\n\r\n")


async def unread(target: Target, _: int) -> None:
    """A device that fetches the base and reads none of it."""
    async with target.connection() as (_reader, writer):
        writer.write(target.head("GET", "/v1/base/model.safetensors"))
        await writer.wait_closed()


async def ranks(target: Target, number: int) -> None:
    """A device that asks for adapters at ranks that it invents."""
    drawn = random.Random(number)
    async with target.connection() as (reader, writer):
        run = decode(await _answer(reader, writer, target.head("GET", "/v1/run")), RunInfo)
        while not reader.at_eof():
            wanted = ".".join(str(drawn.randint(1, basis_rank(weight, run.max_rank))) for weight in run.weights)
            await _answer(reader, writer, target.head("GET", f"/v1/adapters/1?ranks={wanted}"))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    header = (await reader.readuntil(b"\r\n\r\n")).lower()
    return await reader.readexactly(int(header.partition(b"content-length: ")[2].split(b"\r\n")[0]))


NUISANCES: Mapping[str, tuple[Session, int]] = MappingProxyType(
    {
        "silent": (silent, 2000),
        "junk": (junk, 2000),
        "enrolments": (enrolments, 32),
        "trickles": (trickles, 500),
        "garbage": (garbage, 100),
        "logins": (logins, 32),
        "events": (events, 4),
        "unread": (unread, 200),
        "ranks": (ranks, 4),
    }
)
"""Each with as many connections as it holds at once."""

NOT_ELSEWHERE = frozenset({"ranks"})
"""Those that need an answer which a server alone can give."""

OF_A_DEVICE = frozenset({"events", "unread", "ranks"})
"""Those that need a credential."""


async def _until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass


async def _forever(session: Session, target: Target, number: int) -> None:
    while True:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await session(target, number)
        await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def decoy() -> AsyncIterator[int]:
    """A port where every request is refused, and every connection closed a second after."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 429 Busy\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(LINGER_S)
        writer.transport.abort()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0, backlog=BACKLOG) as server:
        yield server.sockets[0].getsockname()[1]


async def be_elsewhere(name: str, target: Target, seconds: float) -> None:
    """Be a nuisance for so long, to nobody but oneself."""
    async with decoy() as port:
        await be(name, replace(target, host="127.0.0.1", port=port), seconds)


async def be(name: str, target: Target, seconds: float) -> None:
    """Be a nuisance for so long."""
    session, count = NUISANCES[name]
    tasks = [asyncio.create_task(_forever(session, target, number)) for number in range(count)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.load.nuisances", description=__doc__)
    parser.add_argument("name", choices=NUISANCES)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--credential", default="", help="of a device, for those that need one")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--elsewhere", action="store_true", help="at a port of its own: the control")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    began = time.monotonic()
    target = Target(options.host, options.port, options.credential)
    asyncio.run((be_elsewhere if options.elsewhere else be)(options.name, target, options.seconds))
    print(f"{options.name}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
