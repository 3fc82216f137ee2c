"""One connection: aiohttp's own handler of HTTP, watched by the guard."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from aiohttp import hdrs, web

from aggregator.http.guard.guests import Guest

KEEPALIVE_S = 75.0
"""Idle connections; longer than the longest long poll."""

READ_BYTES = 64 * 1024
"""Read from a connection at once. asyncio's own 256 KiB is more than aiohttp takes in one piece: it keeps the rest of a
body that nobody wants until the connection ends."""

TLS_READ_BYTES = 4 * 1024
"""Read from a connection with TLS at once. asyncio's own 256 KiB are taken for each connection when it is opened, and
as much again once they were full."""

UNREAD_BYTES = 16 * 1024
"""Bytes of a body that wait for whoever takes them in; at twice as many nothing more is read. aiohttp's own is four
times that, for each of the bodies that are read at once."""

UNSENT_BYTES = 16 * 1024
"""Bytes of an answer that wait to be sent, beyond which nothing more is read for it. With TLS asyncio lets 512 KiB wait
for each connection."""

LINGER_S = 1.0
"""How long a connection stays open after an answer that came before the request's body: for the answer to be read."""


class Connection(web.RequestHandler):
    """A connection whose end, and whose bytes that are no HTTP, are told to whoever made it.

    Args:
        server: aiohttp's, which the application's runner has made.
        guest: the guest book's entry of this connection.
        on_end: called when it is closed.
        on_nonsense: called when what came is no HTTP.
    """

    def __init__(
        self, server: web.Server, guest: Guest, on_end: Callable[[Guest], None], on_nonsense: Callable[[Guest], None]
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp's own word for none
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            read_bufsize=UNREAD_BYTES,
            auto_decompress=False,  # no message is compressed, and a bomb must not burst before it is counted
        )
        self.guest = guest
        self._on_end, self._on_nonsense = on_end, on_nonsense
        self._is_deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast(asyncio.Transport, transport)
        self.guest.close = opened.abort
        opened.set_write_buffer_limits(high=UNSENT_BYTES)
        cast(Any, transport).max_size = READ_BYTES
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._on_end(self.guest)
        super().connection_lost(exc)

    def stop_reading(self) -> None:
        """Take no more bytes: a body that is not wanted is not read. The connection ends with the answer."""
        self._is_deaf = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self, *arguments: Any, **options: Any) -> None:
        if not self._is_deaf:
            super().resume_reading(*arguments, **options)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no HTTP, in one line without its bytes. What else fails here is a bug of ours, and aiohttp's
        to tell; but for an Expect header beyond ASCII at an address that is none, which aiohttp quotes in its refusal,
        and cannot send."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            if request.headers.get(hdrs.EXPECT, "").isascii():
                return super().handle_error(request, status, exc, message)
            status = HTTPStatus.BAD_REQUEST
        self._on_nonsense(self.guest)
        answer = web.Response(status=status, text="this is no HTTP/1.1\n", headers={"Server": SERVER})
        answer.force_close()
        return answer


SERVER = "Braid"
"""The Server header: which versions of what run here is nobody's business."""


def bound_tls_buffers() -> None:
    """Let connections with TLS that are opened from now on read TLS_READ_BYTES at once. asyncio has no other way to
    say so than this, for all of the process."""
    setattr(asyncio.sslproto.SSLProtocol, "max_size", TLS_READ_BYTES)  # noqa: B010 - typeshed does not know it
