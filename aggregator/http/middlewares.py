"""Middlewares: every request passes them before and after its handler. Errors are answered in `aggregator.http.app`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from aggregator.errors import CallError
from aggregator.http.app_keys import GUARD
from aggregator.http.callers import credential_hash_of
from aggregator.http.guard.connection import Connection
from aggregator.http.guard.guard import guest_of
from wire import routes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN_PATHS = frozenset({routes.ENROL.path, routes.PROOF.path, routes.HEALTHZ.path, routes.READYZ.path})
"""Calls that need no credential."""

SMALL_BODY_BYTES = 16 * 1024
"""A body up to this size that nobody wanted is read all the same, so that its connection can be used again."""


@web.middleware
async def watched(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the guard when a connection is at work; close it where a body was left unread."""
    guard, guest = request.app[GUARD], guest_of(request)
    if guest is not None:
        guard.guests.begin(guest)
    try:
        response = await handler(request)
    finally:
        if guest is not None:
            guard.guests.end(guest, guard.clock())
    if not request.content.is_eof() and not 0 <= (request.content_length or -1) <= SMALL_BODY_BYTES:
        response.force_close()
        if isinstance(request.protocol, Connection):
            request.protocol.stop_reading()
    return response


@web.middleware
async def in_turn(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let no source's crowd of calls hold up the calls of others."""
    await request.app[GUARD].turn(request, credential_hash_of(request))
    return await handler(request)


@web.middleware
async def sensible(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse media types that are none, in whatever call: no program writes them by mistake."""
    for name in (hdrs.ACCEPT, hdrs.CONTENT_TYPE):
        if not request.headers.get(name, "").isascii():
            raise CallError("bad_request", f"{name} is no media type: it holds bytes beyond ASCII")
    return await handler(request)


@web.middleware
async def patience(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let strangers call now and then. A fleet may join all at once: that is counted apart."""
    if not _is_open(request):
        return await handler(request)
    guard = request.app[GUARD]
    guard.need_patience(request)
    has_enrolled = False
    try:
        response = await handler(request)
        has_enrolled = request.path == routes.ENROL.path
    finally:
        guard.charge_stranger(request, has_enrolled=has_enrolled)
    return response


def _is_open(request: web.Request) -> bool:
    """Whether a request is for a call that needs no credential, or for none that there is."""
    resource = request.match_info.route.resource
    return resource is None or resource.canonical in OPEN_PATHS


async def expected(_: web.Request) -> None:
    """The answer to `Expect: 100-continue` waits until somebody wants the body."""


async def go_on(request: web.Request) -> None:
    """Tell a sender that waits for a word before its body to send it."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The head of the real answer is still to come: aiohttp's own handler of this header does the same.
        request.writer.output_size = 0
