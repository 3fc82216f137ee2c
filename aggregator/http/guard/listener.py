"""The listener: takes connections in as long as the guard lets them."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial

from aggregator.http.guard.connection import Connection, bound_tls_buffers
from aggregator.http.guard.guard import Guard
from aggregator.http.guard.guests import Guest
from aggregator.http.guard.nuisances import Nuisance

ACCEPTED_AT_ONCE = 8
"""Connections taken in before others get their turn: each costs a tenth of a millisecond."""

BACKLOG = 4096
"""Connections that the system holds meanwhile; Linux allows no more by default."""

NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

PAUSE_S = 0.5
"""How long nobody is taken in where the system has no room for another connection."""


class Listener:
    """Listening sockets, and the connections that are being opened.

    asyncio's own servers count nothing, and where descriptors run out they write a hundred tracebacks a second.

    Args:
        sockets: bound.
        make: the protocol of a guest's connection.
        guard: who may come in.
        context: of TLS; None for none.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        make: Callable[[Guest], Connection],
        guard: Guard,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._sockets, self._make, self._guard, self._context = tuple(sockets), make, guard, context
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        if context is not None:
            bound_tls_buffers()

    @property
    def port(self) -> int:
        """The port of the first socket."""
        return int(self._sockets[0].getsockname()[1])

    def start(self) -> None:
        """Listen. Raises OSError."""
        for one in self._sockets:
            one.setblocking(False)
            one.listen(BACKLOG)
            self._loop.add_reader(one, self._accept, one)

    def close(self) -> None:
        """Listen no more. Connections that are open stay so."""
        for one in self._sockets:
            self._loop.remove_reader(one)
            one.close()
        for pause in self._pauses.values():
            pause.cancel()
        for task in self._opening:
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connected, peer = listening.accept()
            except OSError as error:
                if error.errno in NO_ROOM:
                    self._pause(listening)
                return  # nobody waits, or whoever did has gone
            self._admit(connected, str(peer[0]))

    def _pause(self, listening: socket.socket) -> None:
        """Look away for a moment: the system goes on saying that somebody waits."""
        self._guard.nuisances.count(Nuisance.NO_DESCRIPTOR, "this machine")
        self._loop.remove_reader(listening)
        self._pauses[listening] = self._loop.call_later(PAUSE_S, self._again, listening)

    def _again(self, listening: socket.socket) -> None:
        self._loop.add_reader(listening, self._accept, listening)

    def _admit(self, connected: socket.socket, host: str) -> None:
        guest = self._guard.admit(host)
        if guest is None:
            connected.close()
            return
        task = self._loop.create_task(self._open(connected, guest))
        guest.close = task.cancel  # until the connection is open
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connected: socket.socket, guest: Guest) -> None:
        """Open a connection, with a TLS handshake where there is TLS."""
        timeout_s = None if self._context is None else self._guard.limits.header_s
        try:
            connected.setblocking(False)
            await self._loop.connect_accepted_socket(
                partial(self._make, guest), connected, ssl=self._context, ssl_handshake_timeout=timeout_s
            )
        except ssl.SSLError:
            self._guard.nuisances.count(Nuisance.NOT_TLS, guest.address)
            self._guard.guests.leave(guest)
        except OSError:  # it broke, or its handshake took too long
            self._guard.nuisances.count(Nuisance.SILENT, guest.address)
            self._guard.guests.leave(guest)
        except asyncio.CancelledError:
            self._guard.guests.leave(guest)
            connected.close()
            raise
