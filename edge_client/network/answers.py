"""Answers that are no success, as errors: what the server refuses in its own words, and what others say in its place.

A proxy before the server, or the environment's, answers in HTML where the server would answer with a Refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import hdrs
from yarl import URL

from braid_common.units import printable, show_size
from edge_client.errors import RefusedError, RevokedError
from edge_client.network.errors import (
    ConflictError,
    CopiedError,
    GoneError,
    ProxyLimitError,
    RequestError,
    ThrottledError,
    Unavailable,
    UnknownCredentialError,
)
from edge_client.network.proxy import proxy_variable, shown, without_proxy
from edge_client.network.translate import proxy_login_error
from wire.codec import MEDIA_TYPE
from wire.limits import MAX_LONG_POLL_S, MAX_MESSAGE_BYTES
from wire.messages import Refusal
from wire.routes import UPLOAD_OFFSET

_LIMIT = f"{MAX_MESSAGE_BYTES >> 20}m"

_PAGE = "docs/guide/proxy.md"


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer that is no success. `sent_bytes`: of the request's body, 0 where it is not known."""

    server: str
    status: int
    reason: str
    headers: Mapping[str, str]
    sent_bytes: int = 0
    proxy: URL | None = None

    @property
    def is_braids(self) -> bool:
        """Whether an aggregator wrote it."""
        media = self.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0]
        return media.strip().lower() == MEDIA_TYPE

    @property
    def line(self) -> str:
        """Status and reason, as people know them."""
        return printable(f"{self.status} {self.reason}".strip())

    @property
    def retry_after_s(self) -> float:
        """Seconds of a Retry-After header; its date form needs a trusted clock and counts as absent."""
        return float(parse_count(self.headers.get(hdrs.RETRY_AFTER, "")) or 0)


def refused(answer: Answer, refusal: Refusal) -> Exception:
    """The error for an aggregator's refusal."""
    message, hint = printable(refusal.message), printable(refusal.hint)
    match answer.status:
        case 401:
            return UnknownCredentialError(message, hint or "ask for a new token: `aggregator token create`")
        case 403:
            return RevokedError(message, hint or "ask whoever runs the server; `edge-client leave` forgets it")
        case 409 if refusal.code == "copied":
            return CopiedError(message, hint, answer.retry_after_s)
        case 409:
            return ConflictError(message, parse_count(answer.headers.get(UPLOAD_OFFSET, "")))
        case 410:
            return GoneError(message, hint)
        case 415 | 426:
            return RefusedError(message, hint or "update the older of the two: client or server")
        case 429:
            return ThrottledError(message, hint, answer.retry_after_s)
        case status if status >= 500 or status in (408, 425):
            return Unavailable(message, hint, answer.retry_after_s)
        case _:
            return RequestError(message, hint, status)


def said_by_others(answer: Answer) -> Exception:
    """The error for an answer that no aggregator wrote."""
    server, line = answer.server, answer.line
    if answer.status == 407 and answer.proxy is not None:
        return proxy_login_error(server, answer.proxy)
    if answer.status < 400:
        target = printable(answer.headers.get(hdrs.LOCATION, "elsewhere"))
        return Unavailable(f"{server} redirects to {target}", "give the final address, up to /v1, in --server")
    if answer.status == 413:
        size = f" of {show_size(answer.sent_bytes)}" if answer.sent_bytes else ""
        return ProxyLimitError(
            f"a proxy between this board and the server takes no body{size} ({line})",
            f"raise its limit to {_LIMIT} (client_max_body_size in nginx, max_size in Caddy: {_PAGE}) and start again",
        )
    if answer.proxy is not None:
        variable, host = proxy_variable(URL(server).scheme), URL(server).host or ""
        return Unavailable(
            f"{line} comes from the proxy {shown(answer.proxy)} ({variable}) or from behind it, not from an aggregator",
            f"check {variable} and --server, or go without the proxy: {without_proxy(host)}",
            answer.retry_after_s,
        )
    if answer.status in (502, 503, 504):
        return Unavailable(*_outage(answer), answer.retry_after_s)
    if answer.status >= 500 or answer.status in (408, 425, 429):
        return Unavailable(f"{server} answered {line}", "", answer.retry_after_s)
    return Unavailable(f"{server} answers, but not as a Braid aggregator ({line})", _advice(answer))


def _outage(answer: Answer) -> tuple[str, str]:
    """A reverse proxy's words for a server that is away."""
    if answer.status == 504:
        return (
            f"the proxy at {answer.server} waited too long for the aggregator behind it ({answer.line})",
            f"its timeout must be longer than the {MAX_LONG_POLL_S:.0f} s of a long poll: {_PAGE}",
        )
    hint = "check that `aggregator serve` runs there, on the port that the proxy's settings name"
    if answer.sent_bytes:  # Caddy 2.6 says so of a body beyond its max_size
        hint += f"; if it does, raise the proxy's limit on bodies to {_LIMIT}"
    return f"the proxy at {answer.server} gets no answer of the aggregator behind it ({answer.line})", hint


def _advice(answer: Answer) -> str:
    if answer.status == 404:
        return (
            "check address, port and path in --server, and any proxy between: the path is the prefix under which a "
            "proxy passes Braid on, and nothing without a proxy"
        )
    if answer.status == 401:
        return f"a proxy before the server asks for a password of its own; Braid's calls must pass it: {_PAGE}"
    return "check the address and port in --server, and any proxy between"


def parse_count(text: str) -> int | None:
    """A header's whole number of at most 15 digits, else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None
