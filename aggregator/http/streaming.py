"""Bodies of requests and answers: counted while they stream, limited before they take memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Coroutine
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.addresses import UNREAD_S
from aggregator.http.app_keys import GUARD, RUN
from aggregator.http.cached_reads import read_cached
from aggregator.http.guard.bodies import BLOCK_S, Pace
from aggregator.http.guard.guard import address_of
from aggregator.http.guard.nuisances import Nuisance
from aggregator.http.middlewares import go_on
from aggregator.http.ranges import Range
from aggregator.run.fleet import Board
from aggregator.store.uploads import Part
from wire.codec import CONTENT_TYPE, check_content_type, decode, encode
from wire.errors import ProtocolVersionError, WireError
from wire.fields import Message
from wire.limits import MAX_CONTROL_BYTES, MAX_STRANGERS_BYTES
from wire.routes import UPLOAD_LENGTH, UPLOAD_OFFSET

MESSAGE_S = 5.0
"""A stranger's message, which fits into three packets, has to come within this."""

BLOCK_BYTES = 16 * 1024
"""Read from a file at once, and checked, which takes some hundredths of a millisecond: a thousand boards fetch at the
same moment."""

PIECE_BYTES = 8 * 1024
"""Handed to the connection at once. With TLS a connection keeps, for as long as it is open, as much memory again as was
ever encrypted at once, and a third more."""

DECODED_AT_ONCE_BYTES = 4 * 1024
"""Longer messages are decoded beside the event loop: everybody waits for what is done in it."""

M = TypeVar("M", bound=Message)


def check_media(request: web.Request) -> None:
    """Raise CallError (415) for a body of another type, ProtocolVersionError (426) for another version of ours."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise CallError("bad_request", "compressed bodies are not taken", "Send it as it is.", status=415)
    try:
        check_content_type(request.headers.get("Content-Type"))
    except ProtocolVersionError:
        raise
    except WireError as error:
        raise CallError("protocol_version", str(error), f"Send {CONTENT_TYPE}.", status=415) from error


async def read_message(request: web.Request, kind: type[M], board: Board | None = None) -> M:
    """A request's whole body as a message: of a stranger at most MAX_STRANGERS_BYTES, of a board MAX_CONTROL_BYTES.

    Raises CallError or WireError.
    """
    check_media(request)
    most, block_s = (MAX_STRANGERS_BYTES, MESSAGE_S) if board is None else (MAX_CONTROL_BYTES, BLOCK_S)
    if (request.content_length or 0) > most:
        raise _too_large(kind, most)
    data = bytearray()
    with request.app[GUARD].body(request, "" if board is None else board.device):
        try:
            async for chunk in _chunks(request, block_s):
                data += chunk
                if len(data) > most:
                    raise _too_large(kind, most)
        except SlowBodyError as error:
            raise CallError("busy", str(error), "Send it again.", status=408) from error
    if board is not None:
        board.bytes_up += len(data)
    if len(data) <= DECODED_AT_ONCE_BYTES:
        return decode(data, kind, max_bytes=most)
    return await asyncio.to_thread(decode, data, kind, max_bytes=most)


def _too_large(kind: type[Message], most: int) -> CallError:
    return CallError("too_large", f"{kind.__name__} is larger than {most} bytes")


async def receive(request: web.Request, part: Part, rest_bytes: int, board: Board) -> None:
    """Append a request's body to an upload that lacks `rest_bytes`.

    Raises CallError "too_large" when more comes (the upload is discarded), "conflict" with the offset reached when less
    comes, or too slowly (what arrived is kept); SupersededError when the upload is no longer this request's.
    """
    clock = request.app[RUN].clock
    with request.app[GUARD].body(request, board.device):
        try:
            async for chunk in _chunks(request):
                rest_bytes -= len(chunk)
                board.bytes_up += len(chunk)
                board.seen_s = clock()  # a slow upload is a sign of life
                if rest_bytes < 0:
                    part.discard()
                    raise CallError(
                        "too_large", f"the body is longer than {UPLOAD_LENGTH} says", "Send the upload again from 0."
                    )
                part.append(chunk)
        except SlowBodyError as error:
            raise _conflict(str(error), part) from error
    if rest_bytes:
        raise _conflict(f"{rest_bytes} bytes are missing", part)


def _conflict(what: str, part: Part) -> CallError:
    return CallError("conflict", what, f"Go on from {UPLOAD_OFFSET}.", headers=offset_header(part.size))


def offset_header(offset: int) -> dict[str, str]:
    return {UPLOAD_OFFSET: str(offset)}


class SlowBodyError(Exception):
    """A body that came more slowly than `guard.bodies` allows."""


async def _chunks(request: web.Request, block_s: float = BLOCK_S) -> AsyncIterator[bytes]:
    """The body, as it comes. Raises SlowBodyError, and CallError when the sender breaks off."""
    await go_on(request)
    now = asyncio.get_running_loop().time
    pace = Pace(now(), block_s)
    while True:
        try:
            chunk = await asyncio.wait_for(request.content.readany(), pace.until_s - now())
        except asyncio.TimeoutError as error:
            request.app[GUARD].nuisances.count(Nuisance.SLOW_BODY, address_of(request))
            raise SlowBodyError("the body comes too slowly") from error
        except (ConnectionError, web.RequestPayloadError) as error:
            raise CallError("bad_request", "the connection broke off in the body", "Send it again.") from error
        if not chunk:
            return
        pace.take(len(chunk), now())
        yield chunk


def answer(message: Message, board: Board | None = None, status: int = 200) -> web.Response:
    data = encode(message)
    if board is not None:
        board.bytes_down += len(data)
    headers = {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(data))}
    return web.Response(body=data if len(data) <= PIECE_BYTES else _pieces(data), status=status, headers=headers)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


async def send_file(
    request: web.Request, path: Path, digest: str, content_type: str, board: Board
) -> web.StreamResponse:
    """A file, or the part of it that the request's Range asks for, under its SHA-256 as ETag.

    A file that was sent in full and has another one is broken off before its end, and read again before it is sent
    again. Raises CallError where it is gone, ConnectionError where its end is not to be had.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        message = "the file was dropped just now"
        raise CallError("busy", message, "Ask again.", headers={"Retry-After": "1"}) from error
    with file:  # stays readable should its name go away
        size = file.seek(0, 2)
        range_ = Range.of(request.headers, size, etag := f'"{digest}"')
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": content_type, **range_.headers}
        response = web.StreamResponse(status=range_.status, headers=headers)
        response.content_length = range_.length
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        async for block in _checked_blocks(request, file, range_, path, digest if range_.length == size else ""):
            await _in_time(request, _write(response, block))
            board.bytes_down += len(block)
    await _in_time(request, response.write_eof())
    return response


async def _checked_blocks(
    request: web.Request, file: FileIO, range_: Range, path: Path, digest: str
) -> AsyncIterator[bytes]:
    """The bytes of a range, the last of them only where the whole has this digest; "" is not checked."""
    found, offset, end = hashlib.sha256(), range_.start, range_.start + range_.length
    while offset < end:
        size = min(end - offset, BLOCK_BYTES)
        try:
            block = read_cached(file, offset, size) or await asyncio.to_thread(os.pread, file.fileno(), size, offset)
        except OSError as error:
            raise _broken_off(request, path, f"cannot be read: {error.strerror}") from error
        offset += len(block)
        if digest:
            found.update(block)
        if not block or (offset == end and digest and found.hexdigest() != digest):
            raise _broken_off(request, path, "is damaged: its SHA-256 is another than it was")
        yield block
        await asyncio.sleep(0)  # a file that is in memory, for a reader who is quick, would leave nobody else a turn


def _broken_off(request: web.Request, path: Path, what: str) -> ConnectionError:
    """The end of an answer that cannot be given in full."""
    request.app[RUN].sound_files.doubt(path, what)
    if request.transport is not None:
        request.transport.abort()
    return ConnectionAbortedError(f"{path} {what}")


async def _write(response: web.StreamResponse, block: bytes) -> None:
    async for piece in _pieces(block):
        await response.write(piece)


async def _in_time(request: web.Request, sending: Coroutine[Any, Any, None]) -> None:
    """Send, unless the reader does not read: then break the connection off. Raises ConnectionError."""
    try:
        await asyncio.wait_for(sending, UNREAD_S)
    except asyncio.TimeoutError as error:
        request.app[GUARD].nuisances.count(Nuisance.UNREAD, address_of(request))
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionAbortedError("nobody reads the answer") from error
