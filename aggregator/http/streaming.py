"""Bodies of requests and answers: counted while they stream, limited before they take memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import RUN
from aggregator.http.ranges import Range
from aggregator.run.fleet import Board
from aggregator.store.uploads import Part
from wire.codec import CONTENT_TYPE, check_content_type, decode, encode
from wire.errors import ProtocolVersionError, WireError
from wire.fields import Message
from wire.limits import MAX_CONTROL_BYTES
from wire.routes import UPLOAD_LENGTH, UPLOAD_OFFSET

SILENCE_S = 60.0
"""A body whose next byte does not come for this long is given up; what has arrived of an upload is kept."""

BLOCK_BYTES = 256 * 1024
"""Read from disk and handed to the socket at once."""

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
    """A request's whole body as a message of at most MAX_CONTROL_BYTES. Raises CallError or WireError."""
    check_media(request)
    data = bytearray()
    while chunk := await next_chunk(request):
        data += chunk
        if len(data) > MAX_CONTROL_BYTES:
            raise CallError("too_large", f"{kind.__name__} is larger than {MAX_CONTROL_BYTES} bytes")
    if board is not None:
        board.bytes_up += len(data)
    return decode(data, kind, max_bytes=MAX_CONTROL_BYTES)


async def receive(request: web.Request, part: Part, rest_bytes: int, board: Board) -> None:
    """Append a request's body to an upload that lacks `rest_bytes`.

    Raises CallError "too_large" when more comes (the upload is discarded), "conflict" with the offset reached when less
    comes (what arrived is kept); SupersededError when the upload is no longer this request's.
    """
    clock = request.app[RUN].clock
    while chunk := await next_chunk(request):
        rest_bytes -= len(chunk)
        board.bytes_up += len(chunk)
        board.seen_s = clock()  # a slow upload is a sign of life
        if rest_bytes < 0:
            part.discard()
            raise CallError(
                "too_large", f"the body is longer than {UPLOAD_LENGTH} says", "Send the upload again from 0."
            )
        part.append(chunk)
    if rest_bytes:
        raise CallError(
            "conflict",
            f"{rest_bytes} bytes are missing",
            f"Go on from {UPLOAD_OFFSET}.",
            headers=offset_header(part.size),
        )


def offset_header(offset: int) -> dict[str, str]:
    return {UPLOAD_OFFSET: str(offset)}


async def next_chunk(request: web.Request) -> bytes:
    """The next bytes of the body, b"" at its end. Raises CallError when the sender falls silent or breaks off."""
    try:
        return await asyncio.wait_for(request.content.readany(), SILENCE_S)
    except asyncio.TimeoutError as error:
        raise CallError("bad_request", f"no byte of the body came for {SILENCE_S:.0f} s", "Send it again.") from error
    except (ConnectionError, web.RequestPayloadError) as error:
        raise CallError("bad_request", "the connection broke off in the body", "Send it again.") from error


def answer(message: Message, board: Board | None = None, status: int = 200) -> web.Response:
    data = encode(message)
    if board is not None:
        board.bytes_down += len(data)
    return web.Response(body=data, status=status, headers={"Content-Type": CONTENT_TYPE})


async def send_file(
    request: web.Request, path: Path, digest: str, content_type: str, board: Board
) -> web.StreamResponse:
    """A file, or the part of it that the request's Range asks for, under its SHA-256 as ETag."""
    try:
        file = path.open("rb")
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
        file.seek(range_.start)
        left = range_.length
        while left and (block := await asyncio.to_thread(file.read, min(left, BLOCK_BYTES))):
            await response.write(block)
            board.bytes_down += len(block)
            left -= len(block)
    await response.write_eof()
    return response
