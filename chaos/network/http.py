"""HTTP/1.1 as a proxy needs it: whole requests and answers, kept as the bytes that they came in."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_UPLOAD = re.compile(r"/v1/uploads/(\d+)")


class HttpError(Exception):
    """Bytes that are no HTTP message, or an end before a whole one."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer. `head` is all up to the empty line, which it ends with."""

    head: bytes
    body: bytes = b""

    def header(self, name: str) -> str:
        """A header's value, "" where there is none."""
        wanted = name.lower().encode()
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == wanted:
                return value.strip().decode("latin-1")
        return ""


@dataclass(frozen=True, slots=True)
class Request(Message):
    """A request of a board."""

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def path(self) -> str:
        """The path without its query."""
        return self.head.split(b" ", 2)[1].decode("latin-1").partition("?")[0]

    @property
    def round(self) -> int | None:
        """The round whose upload it is about, 0 for a profile; None for another request."""
        found = _UPLOAD.fullmatch(self.path)
        return int(found[1]) if found else None

    @property
    def is_upload(self) -> bool:
        """Whether it carries bytes of an upload."""
        return self.method == "PATCH" and self.round is not None and len(self.body) > 1

    @property
    def is_download(self) -> bool:
        """Whether it asks for an adapter."""
        return self.method == "GET" and self.path.startswith("/v1/adapters/")


@dataclass(frozen=True, slots=True)
class Answer(Message):
    """An answer of the server."""

    @property
    def status(self) -> int:
        found = _STATUS.match(self.head)
        if found is None:
            raise HttpError("no status line")
        return int(found[1])


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None at its end. Raises HttpError."""
    head = await _read_head(reader)
    if not head:
        return None
    body = await _read_body(reader, Message(head))
    return Request(head, body)


async def read_answer(reader: asyncio.StreamReader, method: str) -> Answer:
    """The answer to a request of this method. Raises HttpError."""
    head = await _read_head(reader)
    if not head:
        raise HttpError("the server closed the connection without an answer")
    answer = Answer(head)
    if method == "HEAD" or answer.status in (204, 304):
        return answer
    return Answer(head, await _read_body(reader, answer))


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        first = await reader.readexactly(1)
        if not first.isalpha():
            raise HttpError("no HTTP: whoever asks in TLS waits for an answer that no server of plain HTTP gives")
        return first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise HttpError("the connection ended within a head") from error
        return b""
    except (asyncio.LimitOverrunError, ConnectionError) as error:
        raise HttpError(str(error)) from error


async def _read_body(reader: asyncio.StreamReader, message: Message) -> bytes:
    if message.header("transfer-encoding"):
        raise HttpError("a body in chunks: neither side sends one")
    try:
        return await reader.readexactly(int(message.header("content-length") or 0))
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        raise HttpError("the connection ended within a body") from error


def made_up(request: Request, status: str, *headers: str) -> bytes:
    """An answer that no aggregator gave, as a proxy's."""
    body = b"<html>not today</html>"
    lines = (f"HTTP/1.1 {status}", "Content-Type: text/html", *headers, f"Content-Length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + (b"" if request.method == "HEAD" else body)
