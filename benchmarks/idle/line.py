"""A line between a client and its server on which the bytes are counted, as TCP carries them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

BLOCK_BYTES = 64 * 1024


@dataclass(slots=True)
class Counts:
    """Bytes that went through since the counts were set to zero. `sent_at`: when each request began."""

    up_bytes: int = 0
    down_bytes: int = 0
    requests_at: list[float] = field(default_factory=list)

    def clear(self) -> None:
        """Begin anew."""
        self.up_bytes = self.down_bytes = 0
        self.requests_at.clear()


class CountedLine:
    """A TCP relay on the loopback address to a server's port there. Use as `async with`."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.counts, self.port = Counts(), 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> CountedLine:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
            await asyncio.gather(self._up(client, to_server), self._down(server, to_client))
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._open.discard(task)
            to_client.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(BLOCK_BYTES):
            self.counts.up_bytes += len(block)
            self.counts.requests_at.append(asyncio.get_running_loop().time())
            writer.write(block)
            await writer.drain()
        writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(BLOCK_BYTES):
            self.counts.down_bytes += len(block)
            writer.write(block)
            await writer.drain()
        writer.close()
