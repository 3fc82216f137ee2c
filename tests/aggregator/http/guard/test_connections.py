"""Connections at a real port: crowds, silence, and what is no HTTP."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import errno
import socket
import ssl
from typing import Any, cast

import pytest
from aiohttp.http_writer import StreamWriter

from aggregator.http import streaming
from aggregator.http.guard.connection import TLS_READ_BYTES, UNSENT_BYTES, Connection
from aggregator.http.guard.guard import Guard
from aggregator.http.guard.limits import Limits
from aggregator.http.guard.listener import Listener
from tests.aggregator.http.guard.conftest import ANSWERED_S, Caller, Door, enrolment, request
from tests.fakes.clock import FakeClock


async def crowd(door: Door, count: int) -> list[Caller]:
    return [await door.call() for _ in range(count)]


async def test_silent_connections_keep_nobody_out(open_door: Any) -> None:
    """A board calls at once, on a new connection and on its own, beside more silent ones than there is room for."""
    door = await open_door(per_address=10, per_known_address=20, connections=40)
    credential = await door.enrol()
    board = await door.call()
    hello = request("GET", "/v1/work?wait=0", Authorization=f"Bearer {credential}")
    await board.send(hello)
    assert (await board.answer()).status == 200

    await crowd(door, 60)
    for _ in range(3):
        assert (await door.say(hello)).status == 200
        await board.send(hello)
        assert (await board.answer()).status == 200

    assert door.count("crowd") >= 30 and len(door.guard.guests) <= 40


async def test_whoever_has_joined_is_no_stranger(open_door: Any, clock: FakeClock) -> None:
    """Nor is its address one: of a fleet that joins at one instant, all but 256 were turned away, and most of them came
    again only after half a minute."""
    door = await open_door(per_address=4, per_known_address=40)
    board = await door.call()
    await board.send(request("POST", "/v1/devices", enrolment(door.token)))
    assert (await board.answer()).status == 200

    await crowd(door, 20)
    await door.settle(21)
    clock.advance(door.guard.limits.header_s + 0.1)
    list(door.guard.watch())

    await door.settle(1)
    assert door.count("crowd") == 0 and door.count("silent") == 20
    await board.send(request("GET", "/healthz"))
    assert (await board.answer()).status == 200


async def test_a_silent_connection_is_closed(door: Door, clock: FakeClock) -> None:
    """As is one that says its header too slowly; a board that waits for work is not."""
    credential = await door.enrol()
    waiting = await door.call()
    await waiting.send(request("GET", "/v1/work?wait=0", Authorization=f"Bearer {credential}"))
    assert (await waiting.answer()).status == 200
    await door.settle(1)
    silent, slow = await crowd(door, 2)
    await slow.send(b"GET /healthz HTTP/1.1\r\nHost:")
    await door.settle(3)

    clock.advance(door.guard.limits.header_s + 0.1)
    list(door.guard.watch())

    assert await silent.is_closed() and await slow.is_closed()
    assert door.count("silent") == 2 and len(door.guard.guests) == 1
    await waiting.send(request("GET", "/v1/run", Authorization=f"Bearer {credential}"))
    assert (await waiting.answer()).status == 200


async def test_nobody_stays_in_the_book_who_has_gone(door: Door) -> None:
    """Whoever ends a connection first, and whenever."""
    for caller in await crowd(door, 5):
        await caller.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await caller.answer()).status == 200
        await caller.close()
    await (await door.call()).send(b"\x00\r\n\r\n")

    await door.settle(0)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 10_000 + b"\r\n\r\n",
        b"\xff\xfe" * 200 + b"\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: x\r\nExpect: \xe9",  # which aiohttp quotes there: once a 500
    ],
)
async def test_what_is_no_http_is_answered_400_and_closed(door: Door, data: bytes, caplog: Any) -> None:
    """It is counted, and writes no traceback."""
    caller = await door.call()
    await caller.send(data + b"\r\n\r\n")

    answer = await caller.answer()

    assert answer.status == 400 and await caller.is_closed()
    assert answer.headers["server"] == "Braid" and door.count("not_http") == 1
    assert "Traceback" not in caplog.text and not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_no_version_is_named(door: Door) -> None:
    """Not in answers, not in refusals, not where there is no such call or method."""
    for data in (
        request("GET", "/healthz"),
        request("GET", "/v1/run"),
        request("GET", "/nothing"),
        request("DELETE", "/v1/run"),
        request("GET", "/v1/run", Expect="something else"),
    ):
        assert (await door.say(data)).headers["server"] == "Braid"


async def test_without_descriptors_nobody_is_taken_in_for_a_moment(clock: FakeClock, caplog: Any) -> None:
    """One count, no line of log, and the system is asked again a little later."""

    class NoRoom(socket.socket):
        asked = 0

        def accept(self) -> Any:
            type(self).asked += 1
            raise OSError(errno.EMFILE, "no room")

    def never(guest: Any) -> Any:
        raise AssertionError(guest)

    guard = Guard(Limits(), clock)
    with NoRoom() as bound:
        bound.bind(("127.0.0.1", 0))
        listener = Listener([bound], never, guard)
        listener.start()
        with socket.create_connection(bound.getsockname()):
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert NoRoom.asked == 1
            listener._pauses[bound].cancel()
            listener._again(bound)
            await asyncio.sleep(0.01)
        listener.close()

    assert NoRoom.asked == 2
    assert {fact["kind"]: fact["count"] for fact in guard.nuisances.totals()}["no_descriptor"] == 2
    assert not caplog.records


async def test_other_errors_of_accepting_are_no_end(clock: FakeClock) -> None:
    """A peer that was gone before it was taken in."""

    class Gone(socket.socket):
        asked = 0

        def accept(self) -> Any:
            type(self).asked += 1
            raise ConnectionAbortedError

    with Gone() as bound:
        bound.bind(("127.0.0.1", 0))
        listener = Listener([bound], lambda guest: pytest.fail("nobody is there"), Guard(Limits(), clock))
        listener.start()
        with socket.create_connection(bound.getsockname()):
            await asyncio.sleep(0.01)
        listener.close()

    assert Gone.asked > 1


@pytest.fixture
def tls(tmp_path: Any) -> ssl.SSLContext:
    from aggregator.http.tls import prepare
    from aggregator.store.folder import Folder

    context = prepare("self-signed", "127.0.0.1", Folder(tmp_path)).context
    assert context is not None
    return context


async def test_with_tls_connections_count_before_their_handshake(
    open_door: Any, tls: ssl.SSLContext, caplog: Any
) -> None:
    """Plain HTTP at a port of TLS is counted; those who never begin a handshake make room for those who do."""
    door = await open_door(tls=tls, per_address=10)
    silent = await crowd(door, 30)
    plain = await door.call()
    await plain.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await plain.is_closed()

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opening = asyncio.open_connection("127.0.0.1", door.port, ssl=context)
    caller = Caller(*await asyncio.wait_for(opening, ANSWERED_S))
    await caller.send(request("GET", "/healthz"))

    assert (await caller.answer()).status == 200
    await caller.close()
    assert await silent[0].is_closed()
    assert door.count("crowd") >= 20 and door.count("not_tls") == 1 and len(door.guard.guests) <= 10
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


async def test_a_connection_with_tls_holds_little(
    open_door: Any, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio gives each a quarter of a mebibyte to read into, and lets half of one wait to be sent: of a thousand
    boards that is most of a small server."""
    made: list[tuple[int, int]] = []
    original = Connection.connection_made

    def noted(self: Connection, transport: asyncio.BaseTransport) -> None:
        original(self, transport)
        made.append(cast(asyncio.Transport, transport).get_write_buffer_limits())

    monkeypatch.setattr(Connection, "connection_made", noted)
    monkeypatch.setattr(asyncio.sslproto.SSLProtocol, "max_size", 256 * 1024)  # as asyncio has it
    door = await open_door(tls=tls)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=context)
    caller = Caller(reader, writer)
    await caller.send(request("GET", "/healthz"))
    assert (await caller.answer()).status == 200
    await caller.close()

    assert [most for _, most in made] == [UNSENT_BYTES]
    assert asyncio.sslproto.SSLProtocol.max_size == TLS_READ_BYTES < 64 * 1024


@pytest.mark.parametrize("path", ["/v1/run", "/v1/base/model.safetensors"])
async def test_answers_are_handed_over_in_pieces(door: Door, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """With TLS a connection keeps as much memory as was ever encrypted at once, until it ends."""
    monkeypatch.setattr(streaming, "PIECE_BYTES", 100)
    written: list[int] = []
    original = StreamWriter._write

    def noted(self: StreamWriter, chunk: bytes) -> None:
        written.append(len(chunk))
        original(self, chunk)

    monkeypatch.setattr(StreamWriter, "_write", noted)
    credential = await door.enrol()
    written.clear()

    answer = await door.say(request("GET", path, Authorization=f"Bearer {credential}"))

    assert answer.status == 200 and len(answer.body) > 300
    assert len(written) >= len(answer.body) // 100 - 1 and max(written[1:]) <= 100
