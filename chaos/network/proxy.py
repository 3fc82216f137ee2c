"""The line between one board and the server: it passes requests on, unless a fault or a trap is due."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from chaos.network.http import Answer, HttpError, Request, made_up, read_answer, read_request
from chaos.network.line_faults import LineFault, LineFaults
from chaos.network.ports import quiet_port

REFUSED_S = (0.05, 0.4)
"""How long nothing listens, from and to: several tries of a board."""

DELAY_S = (0.05, 0.4)
"""How long a request is held, from and to. It is other requests that must get past meanwhile."""

LIMIT_BYTES = 1 << 20
"""The largest head that is read."""

Place = Literal["in mid-upload", "before the board hears", "in mid-download"]
"""A moment of a call that only the line between sees, at which a process may be killed."""


@dataclass(slots=True)
class Trap:
    """A process that is killed when a call, of whichever board, has come to a certain place. `kill` takes the board."""

    place: Place
    kill: Callable[[str], None]
    is_sprung: bool = False

    def meets(self, request: Request) -> bool:
        """Whether a request comes to the place, and the trap is still set."""
        if self.is_sprung:
            return False
        return request.is_download if self.place == "in mid-download" else request.is_upload


@dataclass(slots=True)
class Line:
    """The two connections that a board's request goes over."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server_port: int
    _server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection to the server, opened where there is none. Raises ConnectionError."""
        if self._server is None:
            self._server = await asyncio.open_connection("127.0.0.1", self.server_port, limit=LIMIT_BYTES)
        return self._server

    async def send(self, data: bytes) -> None:
        """Send bytes to the board."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End both connections as a broken line does."""
        for writer in (self.writer, self._server[1] if self._server else None):
            if writer is not None:
                _reset(writer)

    async def close(self) -> None:
        for writer in (self.writer, self._server[1] if self._server else None):
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


@dataclass(slots=True)
class FaultProxy:
    """The address that one board knows its server by.

    Attributes:
        board: its name.
        server_port: where the server listens on this machine.
        faults: deals faults; None for a line that has none.
        note: hears of every answer that the server has given whole.
        before_upload: awaited before an upload is passed on.
        fired: how often each fault has happened.
        trap: on this line, or on several, if any.
    """

    board: str
    server_port: int
    note: Callable[[str, Request, Answer], None]
    faults: LineFaults | None = None
    before_upload: Callable[[str, int], Awaitable[None]] | None = None
    port: int = 0
    fired: Counter[LineFault] = field(default_factory=Counter)
    trap: Trap | None = None
    _listener: asyncio.Server | None = None
    _calls: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen, at the same port as before where there was one."""
        self.port = self.port or quiet_port()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._take, "127.0.0.1", self.port, limit=LIMIT_BYTES)

    @property
    def is_listening(self) -> bool:
        """Whether a connection would not be refused."""
        return self._listener is not None

    async def stop(self) -> None:
        """Listen no more, and end what is under way."""
        if self._listener is not None:
            self._listener.close()
        self._listener = None
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.ensure_future(self._serve(Line(reader, writer, self.server_port)))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _serve(self, line: Line) -> None:
        """One connection of the board, call after call."""
        try:
            while (request := await read_request(line.reader)) is not None:
                if self.trap is not None and self.trap.meets(request):
                    await self._spring(self.trap, line, request)
                    return
                fault = self.faults.fault_of(request) if self.faults is not None else None
                if fault is not None:
                    self.fired[fault] += 1
                    await FAULTS[fault](self, line, request)
                elif not await self._pass_on(line, request):
                    return
        except (HttpError, OSError):
            line.reset()
        finally:
            await line.close()

    async def _pass_on(self, line: Line, request: Request) -> bool:
        """A call without a fault. False where the board went away meanwhile."""
        answering = asyncio.ensure_future(self.exchange(line, request))
        leaving = asyncio.ensure_future(line.reader.read(1))  # a board sends nothing before it has its answer
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                line.reset()
                return False
            await line.send(_bytes(answering.result()))
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        return not line.reader.at_eof()

    async def exchange(self, line: Line, request: Request) -> Answer:
        """A request, whole, and the server's answer to it. Raises HttpError or OSError."""
        if request.is_upload and request.round is not None and self.before_upload is not None:
            await self.before_upload(self.board, request.round)
        reader, writer = await line.server()
        with contextlib.suppress(ConnectionError):  # it may have answered before it had the whole body
            writer.write(_bytes(request))
            await writer.drain()
        answer = await read_answer(reader, request.method)
        self.note(self.board, request, answer)
        return answer

    async def _spring(self, trap: Trap, line: Line, request: Request) -> None:
        trap.is_sprung = True
        if trap.place == "in mid-upload":
            await _send_half(line, request)
        else:
            answer = await self.exchange(line, request)
            if trap.place == "in mid-download":
                await line.send(answer.head + answer.body[: len(answer.body) // 2])
        trap.kill(self.board)
        line.reset()

    async def refuse_for(self, duration_s: float) -> None:
        """Listen no more for a while."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        await asyncio.sleep(duration_s)
        await self.start()


def _bytes(message: Request | Answer) -> bytes:
    return message.head + message.body


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing sends RST
    writer.transport.abort()


async def _send_half(line: Line, request: Request) -> None:
    """The head and half of the body, and time for them to arrive."""
    _, writer = await line.server()
    writer.write(request.head + request.body[: len(request.body) // 2])
    await writer.drain()
    await asyncio.sleep(0.02)  # a reset overtakes what is still in the kernel's buffers


# --- the faults: each does all that is left to do for a request, and ends the connection where it broke --------------


async def _refused(proxy: FaultProxy, line: Line, request: Request) -> None:
    assert proxy.faults is not None
    line.reset()
    await proxy.refuse_for(proxy.faults.uniform(*REFUSED_S))
    raise HttpError("refused")


async def _reset_before(proxy: FaultProxy, line: Line, request: Request) -> None:
    raise HttpError("reset")


async def _reset_in_upload(proxy: FaultProxy, line: Line, request: Request) -> None:
    await _send_half(line, request)
    raise HttpError("reset")


async def _reset_in_answer(proxy: FaultProxy, line: Line, request: Request) -> None:
    data = _bytes(await proxy.exchange(line, request))
    await line.send(data[: len(data) // 2])
    await asyncio.sleep(0.02)
    raise HttpError("reset")


async def _truncated(proxy: FaultProxy, line: Line, request: Request) -> None:
    _, writer = await line.server()
    writer.write(request.head + request.body[: len(request.body) // 2])
    writer.write_eof()
    await writer.drain()
    await asyncio.sleep(0.02)
    raise HttpError("truncated")


async def _lost(proxy: FaultProxy, line: Line, request: Request) -> None:
    await proxy.exchange(line, request)
    raise HttpError("the answer is lost")


async def _duplicated(proxy: FaultProxy, line: Line, request: Request) -> None:
    await proxy.exchange(line, request)
    await line.send(_bytes(await proxy.exchange(line, request)))


async def _duplicated_at_once(proxy: FaultProxy, line: Line, request: Request) -> None:
    twin = Line(line.reader, line.writer, line.server_port)
    exchanges = [asyncio.ensure_future(proxy.exchange(each, request)) for each in (line, twin)]
    try:
        done, _ = await asyncio.wait(exchanges, return_when=asyncio.FIRST_COMPLETED)
        await line.send(_bytes(done.pop().result()))
        await asyncio.wait(exchanges, timeout=DELAY_S[1])
    finally:
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)
        if twin._server is not None:
            _reset(twin._server[1])
    raise HttpError("one of the two connections may still have an answer on it")


async def _delayed(proxy: FaultProxy, line: Line, request: Request) -> None:
    assert proxy.faults is not None
    await asyncio.sleep(proxy.faults.uniform(*DELAY_S))
    await proxy._pass_on(line, request)


async def _server_error(proxy: FaultProxy, line: Line, request: Request) -> None:
    assert proxy.faults is not None
    status = ("500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout")
    await line.send(made_up(request, status[int(proxy.faults.uniform(0, 4))]))


async def _too_many(proxy: FaultProxy, line: Line, request: Request) -> None:
    await line.send(made_up(request, "429 Too Many Requests", "Retry-After: 1"))


async def _wrong_bytes_sent(proxy: FaultProxy, line: Line, request: Request) -> None:
    answer = await proxy.exchange(line, Request(request.head, _flipped(request.body)))
    await line.send(_bytes(answer))


async def _wrong_bytes_received(proxy: FaultProxy, line: Line, request: Request) -> None:
    answer = await proxy.exchange(line, request)
    await line.send(answer.head + (_flipped(answer.body) if answer.status in (200, 206) else answer.body))


async def _not_http(proxy: FaultProxy, line: Line, request: Request) -> None:
    await line.send(b"\x15\x03\x01\x00\x02\x02\x50 and more that is no HTTP\r\n\r\n")
    raise HttpError("nothing that can go on")


async def _page(proxy: FaultProxy, line: Line, request: Request) -> None:
    await line.send(made_up(request, "200 OK"))


FAULTS: Mapping[LineFault, Callable[[FaultProxy, Line, Request], Awaitable[None]]] = {
    "refused": _refused,
    "reset before the answer": _reset_before,
    "reset in mid-upload": _reset_in_upload,
    "reset in mid-answer": _reset_in_answer,
    "truncated request": _truncated,
    "answer lost": _lost,
    "duplicated": _duplicated,
    "duplicated at once": _duplicated_at_once,
    "delayed": _delayed,
    "5xx": _server_error,
    "429": _too_many,
    "wrong bytes sent": _wrong_bytes_sent,
    "wrong bytes received": _wrong_bytes_received,
    "not HTTP": _not_http,
    "a page for an answer": _page,
}


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body
