"""A small forward proxy: it passes all on to one port of this machine, or answers in the server's place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class FakeProxy:
    """`answer`: the bytes that every request gets; b"" passes requests on to `upstream_port`."""

    upstream_port: int = 0
    answer: bytes = b""
    port: int = 0
    heads: list[str] = field(default_factory=list)  # of the requests it was sent

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer):
            head = await reader.read(65536)  # a client's head comes in one piece, or is a greeting of TLS
            self.heads.append(head.decode("latin-1"))
            if self.answer:
                writer.write(self.answer)
                return
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
            async with _closing(server_writer):
                if head.startswith(b"CONNECT "):
                    writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                else:
                    server_writer.write(head)
                await asyncio.gather(_pump(reader, server_writer), _pump(server_reader, writer))


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """A connection that is closed at the end, whoever ended it."""
    try:
        with contextlib.suppress(OSError):
            yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def http_answer(status: str, headers: str = "", body: str = "<html>words of a proxy</html>") -> bytes:
    """An answer of a proxy's own."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


@asynccontextmanager
async def running(proxy: FakeProxy) -> AsyncIterator[FakeProxy]:
    """The proxy, listening; at the end it waits for its connections, which its clients have closed."""
    connections: set[asyncio.Task[None]] = set()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.ensure_future(proxy.handle(reader, writer)))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await asyncio.gather(*connections)
