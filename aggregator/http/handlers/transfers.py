"""Files in both directions: uploads by offset, adapters and the base model by range."""

from __future__ import annotations

import re

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import BASE_FILES, BASE_FOLDER, GUARD, RUN, UPLOADS
from aggregator.http.callers import board_of, participant_of
from aggregator.http.streaming import answer, check_media, offset_header, receive, send_file
from aggregator.run.round_spec import PROFILING
from aggregator.store.uploads import OffsetError
from wire.codec import CONTENT_TYPE
from wire.limits import MAX_ROUNDS
from wire.messages import BaseFile, BaseFiles
from wire.routes import (
    UPLOAD_COMPLETE,
    UPLOAD_DIGEST,
    UPLOAD_LENGTH,
    UPLOAD_OFFSET,
    AdapterQuery,
    wait_s_of,
    whole_number,
)

DAMAGED_RETRY_S = 60
"""When a file of the base is damaged or gone: a person has to put it back."""

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


async def upload_offset(request: web.Request) -> web.Response:
    """`HEAD /v1/uploads/{round}`: how much of an upload is here."""
    board = participant_of(request)
    round_id, digest = _round(request), _digest(request)
    submissions = request.app[RUN].submissions
    if waiting := submissions.received(board.device, round_id, digest):
        return web.Response(headers={**offset_header(waiting.size_bytes), UPLOAD_COMPLETE: "1"})
    stored = submissions.answer_of(board.device, round_id)
    if stored is not None and (round_id == PROFILING or stored.digest == digest):
        return web.Response(headers={**offset_header(stored.size_bytes), UPLOAD_COMPLETE: "1"})
    if stored is None:
        submissions.require_open(board.device, round_id)
    size = request.app[UPLOADS].size(board.device, round_id, digest)
    return web.Response(headers={**offset_header(size), UPLOAD_COMPLETE: "0"})


async def upload(request: web.Request) -> web.Response:
    """`PATCH /v1/uploads/{round}`: bytes from Upload-Offset on; 202 once all are on the disk."""
    board, run = participant_of(request), request.app[RUN]
    check_media(request)
    round_id, digest = _round(request), _digest(request)
    length, offset = _count(request, UPLOAD_LENGTH), _count(request, UPLOAD_OFFSET)
    if run.submissions.received(board.device, round_id, digest):
        return web.Response(status=202)
    if receipt := run.submissions.receipt_of(board.device, round_id, digest):
        return answer(receipt, board)
    run.submissions.require_open(board.device, round_id)
    _check_length(length, run.terms.largest_upload_bytes)
    request.app[GUARD].write(board.device)
    if offset > length:
        raise CallError("bad_request", f"{UPLOAD_OFFSET} {offset} lies behind {UPLOAD_LENGTH} {length}")
    try:
        part = request.app[UPLOADS].take(board.device, round_id, digest, offset)
    except OffsetError as error:
        raise CallError("conflict", str(error), "Go on from there.", headers=offset_header(error.offset)) from error
    try:
        await receive(request, part, length - offset, board)
        await run.submissions.receive(board.device, round_id, digest, part)
    finally:
        part.release()
    return web.Response(status=202)


async def receipt(request: web.Request) -> web.Response:
    """`GET /v1/uploads/{round}?wait=S`: the judgement on an upload, within S seconds; 202 where there is none yet."""
    board, run = participant_of(request), request.app[RUN]
    round_id, digest = _round(request), _digest(request)
    judged = await run.submissions.receipt(board.device, round_id, digest, wait_s_of(request.query))
    return web.Response(status=202) if judged is None else answer(judged, board)


async def adapter(request: web.Request) -> web.StreamResponse:
    """`GET /v1/adapters/{version}?ranks=8.4.0`, with a board that holds an older adapter also `&have=3&had=8.2.0`."""
    board, run = board_of(request), request.app[RUN]
    query = AdapterQuery.decode(request.query)
    guard = request.app[GUARD]
    with guard.download(board.device):
        allowance = guard.allowance(board.device)
        cut = await run.adapter(_whole(request, "version"), query.ranks, query.held, allowance)
        if any(query.ranks):  # an evaluation asks for what is frozen alone, and says nothing about the plan
            board.ranks = query.ranks
        return await send_file(request, cut.path, cut.digest, CONTENT_TYPE, board)


async def base_files(request: web.Request) -> web.Response:
    """`GET /v1/base`: names and sizes of the base's files."""
    board = board_of(request)
    files = request.app[BASE_FILES].items()
    listed = tuple(BaseFile(name=name, size_bytes=file.size_bytes) for name, file in files)
    return answer(BaseFiles(files=listed), board)


async def base_file(request: web.Request) -> web.StreamResponse:
    """`GET /v1/base/{file}`: config.json, tokenizer.json, *.safetensors and their index, nothing else of the folder."""
    board = board_of(request)
    name = request.match_info["file"]
    file = request.app[BASE_FILES].get(name)
    if file is None:
        raise CallError("not_found", f"the base has no file {name[:100]!r}", "GET /v1/base lists them.")
    path, run = request.app[BASE_FOLDER] / name, request.app[RUN]
    with request.app[GUARD].download(board.device):
        if not await run.sound_files.is_sound(path, file.digest):
            run.base_is_damaged(path)
            headers = {"Retry-After": str(DAMAGED_RETRY_S)}
            raise CallError(
                "busy", f"the base here is damaged: {name}", "Whoever runs the server is told.", headers=headers
            )
        run.base_is_sound(path)
        return await send_file(request, path, file.digest, "application/octet-stream", board)


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise CallError("too_large", f"a body of {length} bytes; this run's have at most {most}")
    if length < 1:
        raise CallError("bad_request", "the body is empty")


def _round(request: web.Request) -> int:
    number = _whole(request, "round")
    if number > MAX_ROUNDS:
        raise CallError("bad_request", f"there is no round {number}")
    return number


def _whole(request: web.Request, name: str) -> int:
    return whole_number(name, request.match_info[name])


def _digest(request: web.Request) -> str:
    digest = request.headers.get(UPLOAD_DIGEST, "")
    if not _DIGEST.match(digest):
        raise CallError("bad_request", f"{UPLOAD_DIGEST} must be the SHA-256 of the whole upload in lower-case hex")
    return digest


def _count(request: web.Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise CallError("bad_request", f"{header} must be a number of bytes")
    return int(text)
