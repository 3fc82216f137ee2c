"""A server behind its own door, and a caller that sends it any bytes and sees what comes of them.

Server and caller share one event loop, so that an input is done as soon as the server has nothing more to do for it: it
has answered, or closed the connection, or can do nothing before more bytes come.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from aiohttp import web

from aggregator.http.addresses import listening_sockets
from aggregator.http.app import make_app
from aggregator.http.app_keys import GUARD, WORKER
from aggregator.http.guard import connection
from aggregator.http.guard.limits import Limits
from aggregator.http.server import serving
from aggregator.run import long_polls, submissions
from aggregator.run.identity.sessions import Sessions
from aggregator.run.setup import Opened
from aggregator.store.credentials import RENEW_AFTER_S
from aggregator.store.secrets import secret_hash
from fuzz.contract import BrokenError, require
from fuzz.door.connection import WatchedConnection
from fuzz.door.fleet import HONEST, Clock, enrol, forget, open_small_run, profile
from fuzz.door.log import Complaints
from fuzz.door.template import BOARD, DIGEST, LENGTH, OPERATOR, rendered
from wire.codec import CONTENT_TYPE
from wire.limits import VERSION_DIGEST_CHARS
from wire.rounds import RunState

HOST, HONEST_HOST = "127.0.0.1", "127.0.0.2"
"""Addresses of the caller and of an honest board: what is limited by address is limited apart."""

SHORT_S = 0.02
"""How long a long poll waits, and a connection after an answer that came early: nobody does while inputs are tried."""

GIVE_UP_S = 10.0
"""How long an input is waited for: much longer than the bound that it breaks then (`fuzz.watch.SLOW_S`)."""

STEP_S = 0.02
"""By which the server's clock moves with each input."""

EVERY_INPUTS = 200
"""Inputs between two calls of an honest board."""

MOST_INPUTS = 4_000
"""Inputs of one server. A new one forgets the devices, reports and files that inputs have left."""

_TIMES = ((long_polls, "MAX_LONG_POLL_S"), (submissions, "MAX_LONG_POLL_S"), (connection, "LINGER_S"))
"""The server's times that are SHORT_S while a door is open."""

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n(?:[A-Za-z-]+: [^\r\n]*\r\n)+\r\n")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no closed connection lingers, of which there would be ten thousands


class Door:
    """A server and its caller. Opened and closed once; the server behind it is another one now and then.

    Args:
        folder: for servers' folders.
        base: a base's folder.
        limits: of the guard.
        trains: whether the run's first round is open; else it waits for a profile.
    """

    def __init__(self, folder: Path, base: Path, limits: Limits, *, trains: bool) -> None:
        self._folder, self._base, self._limits, self._trains = folder, base, limits, trains
        self._loop = asyncio.new_event_loop()
        self._complaints = Complaints()
        self._times = [vars(module)[name] for module, name in _TIMES]
        self._stack: AsyncExitStack | None = None
        self._n_inputs = 0

    def open(self) -> None:
        """Start the first server."""
        for module, name in _TIMES:
            vars(module)[name] = SHORT_S
        self._complaints.listen()
        self._loop.run_until_complete(self._begin())

    def close(self) -> None:
        """Stop the server."""
        self._loop.run_until_complete(self._end())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._complaints.stop()
        for (module, name), before in zip(_TIMES, self._times, strict=True):
            vars(module)[name] = before

    def check(self, data: bytes) -> str:
        """Send an input; the statuses of the answers, or what happened in their place."""
        return self._loop.run_until_complete(self._check(data))

    def rest(self) -> None:
        """Work between inputs that is not theirs: make good what the last one has used up, and see that others are
        served."""
        self._loop.run_until_complete(self._rest())

    # --- the server ---

    async def _begin(self) -> None:
        root = self._folder / "server"
        shutil.rmtree(root, ignore_errors=True)
        self._clock, self._stack = Clock(), AsyncExitStack()
        self._n_inputs, self._has_changed = 0, False
        self._opened: Opened = open_small_run(root, self._base, self._clock)
        self._stack.callback(self._opened.store.close)
        self._app: web.Application = make_app(self._opened, secret_hash(OPERATOR), limits=self._limits)
        sockets = listening_sockets("127.0.0.1", 0)
        self._port = await self._stack.enter_async_context(serving(self._app, sockets, connection=WatchedConnection))
        run = self._opened.run
        for name, credential in (("honest", HONEST), ("honest too", f"{HONEST}-too")):
            await enrol(run, name, credential)
            if self._trains or credential == HONEST:
                await self._profile(credential)
        if self._trains:
            await self._until(lambda: run.run_state is RunState.TRAINING and run.open_round is not None, "training")
        self._device = (await enrol(run, "board", BOARD)).device
        self._clock.put_on(RENEW_AFTER_S)
        self._complaints.take()

    async def _profile(self, credential: str) -> None:
        terms = self._opened.run.terms
        body = profile(terms.weights, terms.manifest, terms.max_rank, seed=len(credential))
        head = (
            f"PATCH /v1/uploads/0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {credential}\r\nUpload-Offset: 0\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {LENGTH.decode()}\r\nUpload-Length: {LENGTH.decode()}\r\n"
            f"Upload-Digest: {DIGEST.decode()}\r\n\r\n"
        )
        answer = await self._exchange(rendered(head.encode() + body, ""), HONEST_HOST)
        require(statuses(answer) == ["202"], "an honest profile is taken")

    async def _end(self) -> None:
        if self._stack is not None:
            await self._stack.aclose()
        self._stack = None

    # --- inputs ---

    async def _check(self, data: bytes) -> str:
        self._clock.now += STEP_S
        self._n_inputs += 1
        answer = await self._exchange(rendered(data, self._opened.run.digest[:VERSION_DIGEST_CHARS]), HOST)
        found = statuses(answer)
        self._has_changed |= any(status < "300" for status in found)
        complaint = self._complaints.take()
        for status in found:
            if status >= "500" and status != "503":
                where = complaint.where if complaint else ""
                raise BrokenError(status, complaint.text if complaint else "without a word in the log", where)
        if complaint:
            raise BrokenError("traceback", complaint.text, complaint.where)
        worker = self._app[WORKER]
        if worker.done():
            raise BrokenError("server ended", repr(worker.exception()))
        return " ".join(found[:2]) or "no answer"

    async def _exchange(self, data: bytes, host: str) -> bytes:
        """Send these bytes on a connection of their own; all that comes back until the server has done its part."""
        WatchedConnection.last = None
        received = bytearray()
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            caller.bind((host, 0))
            caller.connect(("127.0.0.1", self._port))
            caller.setblocking(False)
            with suppress(OSError):  # closed before all was sent
                caller.send(data)  # which the system takes whole: it is far less than it holds for a connection
            await self._until(lambda: _has_done_its_part(caller, received), "an answer, or the connection's end")
        await self._until(_is_over, "the connection's end, after its peer's")
        await self._until(lambda: not len(self._opened.run.inbox), "the judgement on an upload")
        return bytes(received)

    async def _until(self, is_so: Callable[[], bool], what: str) -> None:
        """Let the server work until something is so. Raises BrokenError when it never is."""
        begin, passes, times = time.perf_counter(), 0, 0
        while times < 2:  # what was sent a moment ago is read in the pass after this one
            await asyncio.sleep(0 if passes < 20 else 0.0002)
            passes += 1
            times = times + 1 if is_so() else 0
            if time.perf_counter() - begin > GIVE_UP_S:
                raise BrokenError("hang", f"{what} did not come within {GIVE_UP_S:.0f} s", what)

    async def _rest(self) -> None:
        if self._stack is None or self._n_inputs >= MOST_INPUTS:
            await self._end()
            await self._begin()
        if self._has_changed:
            await self._make_good()
        if self._n_inputs % EVERY_INPUTS == 0:
            await self._serve_honest_board()

    async def _make_good(self) -> None:
        """Let the board whose credential inputs hold take part again, whatever they have done with it."""
        self._has_changed = False
        run, device = self._opened.run, self._opened.store.device_of(secret_hash(BOARD))
        if device is None or device.has_left:
            await enrol(run, "board", BOARD)
            self._clock.put_on(RENEW_AFTER_S)  # and let it renew its credential again
        run.boards[self._device].sessions = Sessions()  # a session that an input has begun would shut out all others
        await forget(run, self._device)

    async def _serve_honest_board(self) -> None:
        call = f"GET /v1/work?wait=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {HONEST}\r\n\r\n"
        answer = await self._exchange(call.encode(), HONEST_HOST)
        require(statuses(answer) == ["200"], "an honest board is served after all that")
        require(len(self._app[GUARD].guests) == 0, "connections that have ended are forgotten")


def statuses(answer: bytes) -> list[str]:
    """The statuses of the answers in these bytes. Words that an answer quotes are no answer: they have no line ends."""
    return [status.decode() for status in _STATUS.findall(answer)]


def _has_done_its_part(caller: socket.socket, received: bytearray) -> bool:
    """Take what has come; whether the server has closed the connection, or waits for more bytes."""
    try:
        while chunk := caller.recv(1 << 16):
            received += chunk
    except BlockingIOError:
        last = WatchedConnection.last
        return last is not None and last.waits_for_bytes
    except OSError:
        pass
    return True


def _is_over() -> bool:
    last = WatchedConnection.last
    return last is None or last.has_ended
