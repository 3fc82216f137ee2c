"""One HTTP connection pool to one server: requests out, checked answers or typed errors back.

Nothing is authenticated by wall-clock time: a pinned certificate (`fingerprint`) is not even checked for its dates.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs
from yarl import URL

from braid_common.units import printable
from edge_client.errors import ConfigError, RefusedError, RevokedError
from edge_client.network.errors import ConflictError, GoneError, RequestError, Unavailable, translate
from wire.codec import CONTENT_TYPE, MEDIA_TYPE, check_content_type, decode
from wire.errors import ProtocolVersionError, WireError
from wire.fields import Message
from wire.limits import MAX_CONTROL_BYTES
from wire.messages import Refusal
from wire.routes import UPLOAD_OFFSET

M = TypeVar("M", bound=Message)

CONNECT_TIMEOUT_S = 15.0
"""A TCP and TLS handshake over a bad mobile link takes a few seconds."""

READ_TIMEOUT_S = 30.0
"""Silence on the line after which it counts as dead. There is no limit on a whole transfer: a slow one may go on."""


MAX_ANSWER_BYTES = 16 << 20
"""The largest answer kept in memory is a RunInfo: 2048 weights with 256 values of 9 bytes make 5 MB."""


@dataclass(slots=True)
class Traffic:
    """Bytes of bodies moved since the client started."""

    up_bytes: int = 0
    down_bytes: int = 0


def parse_fingerprint(text: str) -> bytes:
    """The 32 bytes of a SHA-256 fingerprint, written as hex with or without colons and a "sha256:" in front."""
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ConfigError(
            f"--fingerprint {text!r} is not a SHA-256 fingerprint",
            "copy the 64 hexadecimal digits that `aggregator serve` printed",
        )
    return raw


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that gives up on data which nobody acknowledges: aiohttp times answers, but not a stalled upload."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * READ_TIMEOUT_S))
    return made


def environment_proxy(url: str) -> URL | None:
    """The proxy that http_proxy, https_proxy and no_proxy name for `url`; user and password stay in it for aiohttp."""
    parts = URL(url)
    address = getproxies().get(parts.scheme)
    if address is None or proxy_bypass(parts.host or ""):
        return None
    return URL(address if "//" in address else f"http://{address}")


class Transport:
    """Use as `async with`. `server` is a normalised URL without a slash at its end; `credential` may be set later."""

    def __init__(self, server: str, *, credential: str = "", fingerprint: str = "") -> None:
        self.server, self.credential = server, credential
        self.traffic = Traffic()
        self._ssl = aiohttp.Fingerprint(parse_fingerprint(fingerprint)) if fingerprint else True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Transport:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
        # No cookies, and few connections: one board, one server. aiohttp's trust_env would bring the environment's
        # proxies, but also the passwords in ~/.netrc, which are not for us to send.
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            proxy=environment_proxy(self.server),
            auto_decompress=False,  # never asked for; a few kilobytes could otherwise become gigabytes
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=4, socket_factory=_socket),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        answer: type[M],
        *,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> M:
        """One request, its answer decoded as `answer`. Raises as `open` does."""
        async with self.open(
            method, path, body=body, headers=headers, params=params, read_timeout_s=read_timeout_s
        ) as response:
            self._require_braid(response)
            data = await self._read(response, MAX_ANSWER_BYTES)
        try:
            return decode(data, answer)
        except WireError as error:
            raise Unavailable(
                f"{self.server} sent a {answer.__name__} that cannot be read: {error}",
                "update the client or the server if this goes on",
            ) from error

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, its answer's body unread.

        Raises Unavailable (try again), GoneError, ConflictError, RequestError, RefusedError or RevokedError; network
        errors while the caller reads the body come out as Unavailable as well.
        """
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=read_timeout_s)
        try:
            async with self._session.request(
                method,
                self.server + path,
                data=self._counted(body),
                headers=self._headers(body is not None, headers),
                params=params,
                timeout=timeout,
                ssl=self._ssl,
                allow_redirects=False,  # a redirect would carry the credential to whoever it names
            ) as response:
                if response.status >= 300:
                    raise await self._refusal(response)
                yield response
        except (aiohttp.ClientError, asyncio.TimeoutError, TimeoutError, OSError) as error:
            raise translate(error, self.server) from error

    def _headers(self, has_body: bool, extra: Mapping[str, str] | None) -> dict[str, str]:
        headers: dict[str, str] = {hdrs.ACCEPT: CONTENT_TYPE, hdrs.ACCEPT_ENCODING: "identity"}
        if has_body:
            headers[hdrs.CONTENT_TYPE] = CONTENT_TYPE
        if self.credential:
            headers[hdrs.AUTHORIZATION] = f"Bearer {self.credential}"
        return {**headers, **(extra or {})}

    def _counted(self, body: bytes | AsyncIterator[bytes] | None) -> Any:
        if isinstance(body, bytes):
            self.traffic.up_bytes += len(body)
        return body

    def _require_braid(self, response: aiohttp.ClientResponse) -> None:
        content_type = response.headers.get(hdrs.CONTENT_TYPE)
        try:
            check_content_type(content_type)
        except ProtocolVersionError as error:
            raise RefusedError(f"{self.server}: {error}", "update the older of the two: client or server") from error
        except WireError as error:
            raise Unavailable(
                f"{self.server} answers, but not as a Braid aggregator ({error})",
                "check the address and port in --server, and any proxy between",
            ) from error

    async def _read(self, response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            self.traffic.down_bytes += len(chunk)
            if len(data) > limit_bytes:
                raise Unavailable(f"{self.server} sent an answer of more than {limit_bytes} bytes")
        return bytes(data)

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        """The error that a 3xx, 4xx or 5xx answer stands for."""
        if response.status < 400:
            target = printable(response.headers.get(hdrs.LOCATION, "elsewhere"))
            return Unavailable(f"{self.server} redirects to {target}", "give the final address in --server")
        refusal = Refusal(code="internal", message=f"{self.server} answered {response.status} {response.reason}")
        if response.method != hdrs.METH_HEAD:
            media = response.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
            if media == MEDIA_TYPE:
                # Refusals are read whatever their version: their sentence says which one the server wants.
                with suppress(WireError):
                    refusal = decode(await self._read(response, MAX_CONTROL_BYTES), Refusal)
            elif response.status < 500:
                return Unavailable(
                    f"{self.server} answers, but not as a Braid aggregator ({response.status} {response.reason})",
                    "check the address and port in --server, and any proxy between",
                )
        return _by_status(response, refusal)


def _by_status(response: aiohttp.ClientResponse, refusal: Refusal) -> Exception:
    message, hint = printable(refusal.message), printable(refusal.hint)
    match response.status:
        case 401:
            return RefusedError(message, hint or "ask for a new token: `aggregator token create`")
        case 403:
            return RevokedError(message, hint or "ask whoever runs the server; `edge-client leave` forgets it")
        case 409:
            return ConflictError(message, _offset(response))
        case 410:
            return GoneError(message, hint)
        case 415 | 426:
            return RefusedError(message, hint or "update the older of the two: client or server")
        case status if status >= 500 or status in (408, 425, 429):
            return Unavailable(message, hint, _retry_after_s(response))
        case _:
            return RequestError(message, hint, status)


def _offset(response: aiohttp.ClientResponse) -> int | None:
    return parse_count(response.headers.get(UPLOAD_OFFSET, ""))


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    """Seconds of a Retry-After header; its date form needs a trusted clock and counts as absent."""
    return float(parse_count(response.headers.get(hdrs.RETRY_AFTER, "")) or 0)


def parse_count(text: str) -> int | None:
    """A header's whole number of at most 15 digits, else None."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None
