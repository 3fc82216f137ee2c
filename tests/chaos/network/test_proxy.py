"""A line with faults: what the server gets of a request, and what the board gets of an answer, for each of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from chaos.network.http import Answer, HttpError, Request, read_answer, read_request
from chaos.network.line_faults import LINE_FAULTS, LineFault, LineFaults
from chaos.network.proxy import FaultProxy, Place, Trap

BODY = b"0123456789"
UPLOAD = b"PATCH /v1/uploads/1 HTTP/1.1\r\nContent-Length: 10\r\n\r\n" + BODY
DOWNLOAD = b"GET /v1/adapters/1 HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"


@dataclass
class Upstream:
    """A server that answers everything with ANSWER. `whole` and `broken`: what it got."""

    port: int = 0
    whole: list[Request] = field(default_factory=list)
    broken: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            try:
                while (request := await read_request(reader)) is not None:
                    self.whole.append(request)
                    writer.write(ANSWER)
                    await writer.drain()
            except HttpError:
                self.broken += 1
            writer.close()
            await writer.wait_closed()


class Just(LineFaults):
    """Deals one fault, once."""

    def __init__(self, fault: LineFault) -> None:
        super().__init__("a", 1.0)
        self._left = [fault]

    def fault_of(self, request: Request) -> LineFault | None:
        return self._left.pop() if self._left else None


@asynccontextmanager
async def line(fault: LineFault | None = None) -> AsyncIterator[tuple[FaultProxy, Upstream, list[Answer]]]:
    """A proxy before a server, and the answers that it heard."""
    upstream, heard = Upstream(), list[Answer]()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    faults = Just(fault) if fault is not None else None
    proxy = FaultProxy("ada", upstream.port, lambda board, request, answer: heard.append(answer), faults)
    await proxy.start()
    try:
        yield proxy, upstream, heard
    finally:
        await proxy.stop()
        server.close()


async def ask(proxy: FaultProxy, request: bytes) -> bytes:
    """All that a board gets, up to the end of one answer; what came before a connection broke."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(request)
    method = request.split(b" ")[0].decode()
    try:
        answer = await asyncio.wait_for(read_answer(reader, method), 10)
        return answer.head + answer.body
    except HttpError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_without_faults_it_passes_on_what_it_gets() -> None:
    async with line() as (proxy, upstream, heard):
        assert await ask(proxy, UPLOAD) == ANSWER
        assert await ask(proxy, DOWNLOAD) == ANSWER
    assert [request.body for request in upstream.whole] == [BODY, b""]
    assert [answer.body for answer in heard] == [b"done", b"done"]


SEEN: dict[LineFault, tuple[int, bytes | None]] = {
    "refused": (0, b""),
    "reset before the answer": (0, b""),
    "reset in mid-upload": (0, b""),
    "reset in mid-answer": (1, b""),
    "truncated request": (0, b""),
    "answer lost": (1, b""),
    "duplicated": (2, ANSWER),
    "duplicated at once": (2, ANSWER),
    "delayed": (1, ANSWER),
    "5xx": (0, b"HTTP/1.1 5"),
    "429": (0, b"HTTP/1.1 429"),
    "wrong bytes sent": (1, ANSWER),
    "wrong bytes received": (1, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndooe"),
    "not HTTP": (0, b""),
    "a page for an answer": (0, b"HTTP/1.1 200 OK\r\nContent-Type: text/html"),
}
"""By fault: how many whole requests reach the server, and how the answer begins that the board gets ("": it gets none).
"""


@pytest.mark.parametrize("fault", LINE_FAULTS)
async def test_each_fault_does_what_it_says(fault: LineFault) -> None:
    """And the call after it gets through."""
    n_whole, begins = SEEN[fault]
    async with line(fault) as (proxy, upstream, heard):
        got = await ask(proxy, DOWNLOAD if fault == "wrong bytes received" else UPLOAD)

        assert proxy.fired == {fault: 1}
        assert len(upstream.whole) == n_whole == len(heard)
        assert begins is not None and (got.startswith(begins) if begins else got == b"")
        if fault in ("reset in mid-upload", "truncated request"):
            assert upstream.broken == 1
        if fault == "wrong bytes sent":
            assert upstream.whole[0].body == b"012344" + BODY[6:]
        while not proxy.is_listening:
            assert await _is_refused(proxy.port)
            await asyncio.sleep(0.05)
        assert await ask(proxy, UPLOAD) == ANSWER


async def _is_refused(port: int) -> bool:
    try:
        await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    ("place", "request_", "n_whole"),
    [("in mid-upload", UPLOAD, 0), ("before the board hears", UPLOAD, 1), ("in mid-download", DOWNLOAD, 1)],
)
async def test_a_trap_springs_once_at_its_place(place: Place, request_: bytes, n_whole: int) -> None:
    """Other calls pass; the one that it is for breaks off, and its process is killed then."""
    killed: list[str] = []
    async with line() as (proxy, upstream, _):
        proxy.trap = Trap(place, killed.append)
        other = UPLOAD if request_ == DOWNLOAD else DOWNLOAD
        assert await ask(proxy, other) == ANSWER
        assert not killed

        assert await ask(proxy, request_) == b""
        assert killed == ["ada"]
        assert len(upstream.whole) == 1 + n_whole
        assert await ask(proxy, request_) == ANSWER and killed == ["ada"]


async def test_uploads_wait_for_their_turn() -> None:
    turns: list[tuple[str, int]] = []
    gate = asyncio.Event()

    async def turn(board: str, round_id: int) -> None:
        turns.append((board, round_id))
        await gate.wait()

    async with line() as (proxy, upstream, _):
        proxy.before_upload = turn
        waiting = asyncio.ensure_future(ask(proxy, UPLOAD))
        assert await ask(proxy, DOWNLOAD) == ANSWER
        assert len(upstream.whole) == 1 and not waiting.done()
        gate.set()
        assert await waiting == ANSWER
    assert turns == [("ada", 1)]


async def test_a_board_that_goes_ends_its_call_at_the_server() -> None:
    """A long poll of a board that was killed does not keep it alive at the server."""
    ended = asyncio.Event()

    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(100):
                pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(never_answers, "127.0.0.1", 0)
    proxy = FaultProxy("ada", server.sockets[0].getsockname()[1], lambda *_: None)
    await proxy.start()
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(DOWNLOAD)
    await writer.drain()
    writer.close()

    await asyncio.wait_for(ended.wait(), 10)

    await proxy.stop()
    server.close()
