"""One HTTP connection pool to one server: requests out, checked answers or typed errors back.

Nothing is authenticated by wall-clock time: a pinned certificate (`fingerprint`) is not even checked for its dates.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import aiohttp
from aiohttp import hdrs
from yarl import URL

from braid_common.fingerprint import parse_fingerprint
from edge_client.errors import ConfigError, DiskError, RefusedError
from edge_client.network.answers import Answer, parse_count, refused, said_by_others
from edge_client.network.errors import OtherCertificateError, TryAgain, Unavailable, UnknownCredentialError
from edge_client.network.proxy import environment_proxy
from edge_client.network.translate import speaks_tls_error, translate
from wire.codec import CONTENT_TYPE, check_content_type, decode
from wire.errors import ProtocolVersionError, WireError
from wire.fields import Message
from wire.limits import MAX_CONTROL_BYTES
from wire.messages import Refusal
from wire.routes import SESSION

M = TypeVar("M", bound=Message)

_NOT_HTTP = (aiohttp.ServerDisconnectedError, aiohttp.ClientResponseError)
"""What comes of plain HTTP at a port of TLS: an end without a word, or bytes that are no status line."""

CONNECT_TIMEOUT_S = 15.0
"""A TCP and TLS handshake over a bad mobile link takes a few seconds."""

READ_TIMEOUT_S = 30.0
"""Silence on the line after which it counts as dead. There is no limit on a whole transfer: a slow one may go on."""


MAX_ANSWER_BYTES = 16 << 20
"""The largest answer kept in memory is a RunInfo: 2048 weights with 256 values of 9 bytes make 5 MB."""


USER_AGENT = "braid"
"""The name by which proxies on the way know this program. Which versions of what it is made of is nobody's business,
and it goes out with each of the 1,440 polls of a day."""

ACCEPTED = 202
"""The status of an answer that is still to come."""


@dataclass(slots=True)
class Traffic:
    """Bytes of bodies moved since the client started."""

    up_bytes: int = 0
    down_bytes: int = 0


def parse_pin(text: str) -> bytes:
    """The 32 bytes of --fingerprint. Raises ConfigError."""
    try:
        return parse_fingerprint(text)
    except ValueError as error:
        raise ConfigError(
            f"--fingerprint: {error}", "copy the 64 hexadecimal digits that `aggregator serve` printed"
        ) from error


def _without_zone(host: str) -> str | None:
    """The address without its zone, such as %eth0, which means something on this board alone; None without a zone."""
    address, percent, _ = host.partition("%")
    return address if percent else None


def _authorities() -> ssl.SSLContext:
    """A context that trusts the system's authorities, or those of SSL_CERT_FILE: aiohttp's own knows none here
    (edge_client/network/__init__.py)."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that gives up on data which nobody acknowledges: aiohttp times answers, but not a stalled upload."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * READ_TIMEOUT_S))
    return made


class Keeper(Protocol):
    """Keeps what a board and its server know each other by, for when one of them has changed it."""

    def credentials(self) -> Sequence[str]:
        """All credentials that the server may know, the likeliest first."""

    async def follows(self, fingerprint: str) -> bool:
        """Whether the certificate of this fingerprint has been shown to be the server's own, and is trusted now."""


class Transport:
    """Use as `async with`. `server` is a normalised URL without a slash at its end; `credential` may be set later.

    `session` is sent with every call, where there is one: of the clients that have a board's credential, its own.
    """

    def __init__(self, server: str, *, credential: str = "", fingerprint: str = "", session: str = "") -> None:
        self.server, self.credential, self._session_id = server, credential, session
        self.keeper: Keeper | None = None
        self._refused: set[str] = set()  # credentials, since the last call that was answered
        self.proxy = environment_proxy(server)
        self.traffic = Traffic()
        self._zoneless = _without_zone(URL(server).host or "")
        self.trust(fingerprint)
        self._session: aiohttp.ClientSession | None = None

    def trust(self, fingerprint: str) -> None:
        """Take the certificate of this fingerprint alone from now on; "" takes those of known authorities."""
        self._ssl: aiohttp.Fingerprint | ssl.SSLContext | bool = True
        if fingerprint:
            self._ssl = aiohttp.Fingerprint(parse_pin(fingerprint))
        elif any(str(address).startswith("https:") for address in (self.server, self.proxy)):
            self._ssl = _authorities()

    async def __aenter__(self) -> Transport:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
        # No cookies, and few connections: one board, one server. aiohttp's trust_env would bring the environment's
        # proxies, but also the passwords in ~/.netrc, which are not for us to send.
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            proxy=self.proxy,
            headers={hdrs.USER_AGENT: USER_AGENT},
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
        found = await self.call_unless_202(
            method, path, answer, body=body, headers=headers, params=params, read_timeout_s=read_timeout_s
        )
        if found is None:
            raise Unavailable(f"{self.server} accepted {path} and said nothing of it", "is there a proxy between?")
        return found

    async def call_unless_202(
        self,
        method: str,
        path: str,
        answer: type[M],
        *,
        body: AsyncIterator[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> M | None:
        """The same where the server may say that it has no answer yet (202): None then."""
        async with self.open(
            method, path, body=body, headers=headers, params=params, read_timeout_s=read_timeout_s
        ) as response:
            if response.status == ACCEPTED:
                return None
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

        Raises Unavailable (try again; TryAgain where the keeper has found the right credential or certificate),
        GoneError, ConflictError, RequestError, RefusedError, RevokedError; Unavailable also while the body is read.
        """
        assert self._session is not None
        sent = self.credential
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
                server_hostname=self._zoneless,
                allow_redirects=False,  # a redirect would carry the credential to whoever it names
            ) as response:
                if response.status >= 300:
                    raise await self._refusal(response)
                self._refused.clear()
                yield response
        except (aiohttp.ClientError, asyncio.TimeoutError, TimeoutError, OSError) as error:
            raise await self._failure(error) from error
        except UnknownCredentialError as error:
            if self._has_other(sent):
                raise TryAgain("the server may know another credential of this board") from error
            raise

    async def _failure(self, error: BaseException) -> Exception:
        """The error that a broken connection or answer stands for."""
        if isinstance(error.__cause__, DiskError):  # the request's body could not be read here
            return error.__cause__
        if isinstance(error, _NOT_HTTP) and await self._wants_tls():
            return speaks_tls_error(self.server)
        failure = translate(error, self.server, self.proxy)
        if isinstance(failure, OtherCertificateError) and await self._follows(failure):
            return TryAgain("the server has shown a new certificate to be its own")
        return failure

    async def _follows(self, mismatch: OtherCertificateError) -> bool:
        return self.keeper is not None and await self.keeper.follows(mismatch.fingerprint)

    def _has_other(self, refused: str) -> bool:
        """Whether there is another credential to try than those that were refused since the last call that was not; it
        is then in their place. Behind the last one all may be tried again, later."""
        if not refused or self.keeper is None:
            return False
        if refused != self.credential:  # renewed while the call was under way
            return bool(self.credential)
        self._refused.add(refused)
        known = self.keeper.credentials()
        others = [credential for credential in known if credential not in self._refused]
        if not others:
            self._refused.clear()
        self.credential = (*others, *known, refused)[0]
        return bool(others)

    def _headers(self, has_body: bool, extra: Mapping[str, str] | None) -> dict[str, str]:
        headers: dict[str, str] = {hdrs.ACCEPT: CONTENT_TYPE, hdrs.ACCEPT_ENCODING: "identity"}
        if has_body:
            headers[hdrs.CONTENT_TYPE] = CONTENT_TYPE
        if self._zoneless is not None:  # RFC 6874: a zone is not sent
            headers[hdrs.HOST] = f"[{self._zoneless}]:{URL(self.server).port}"
        if self.credential:
            headers[hdrs.AUTHORIZATION] = f"Bearer {self.credential}"
        if self._session_id:
            headers[SESSION] = self._session_id
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
                "check address, port and path in --server, and any proxy between",
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
        sent_bytes = parse_count(response.request_info.headers.get(hdrs.CONTENT_LENGTH, "")) or 0
        answer = Answer(self.server, response.status, response.reason or "", response.headers, sent_bytes, self.proxy)
        if not answer.is_braids:
            if answer.status == 400 and await self._wants_tls():
                return speaks_tls_error(self.server)
            return said_by_others(answer)
        refusal = Refusal(code="internal", message=f"{self.server} answered {answer.line}")
        if response.method != hdrs.METH_HEAD:
            # Refusals are read whatever their version: their sentence says which one the server wants.
            with suppress(WireError):
                refusal = decode(await self._read(response, MAX_CONTROL_BYTES), Refusal)
        return refused(answer, refusal)

    async def _wants_tls(self) -> bool:
        """Whether a server that was spoken to in plain HTTP, and did not understand, speaks TLS."""
        parts = URL(self.server)
        if parts.scheme != "http" or self.proxy is not None:
            return False
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent; who it is does not matter
        try:
            opening = asyncio.open_connection(parts.host, parts.port, ssl=context)
            _, writer = await asyncio.wait_for(opening, CONNECT_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):  # ssl's errors are OSErrors
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True
