"""Files in both directions: uploads by offset, profiles, adapters and the base model by range."""

from __future__ import annotations

import re

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import BASE_FILES, BASE_FOLDER, RUN, UPLOADS
from aggregator.http.callers import board_of
from aggregator.http.streaming import answer, check_media, offset_header, receive, send_file
from aggregator.run.open_round import PROFILING
from aggregator.store.slices import Held
from aggregator.store.uploads import OffsetError
from wire.codec import CONTENT_TYPE
from wire.limits import MAX_RANK, MAX_ROUNDS, MAX_WEIGHTS
from wire.messages import BaseFile, BaseFiles

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_MAX_RANKS_CHARS = MAX_WEIGHTS * (len(str(MAX_RANK)) + 1)


async def upload_offset(request: web.Request) -> web.Response:
    """`HEAD /v1/uploads/{round}`: how much of an upload is here."""
    board = board_of(request)
    round_id, digest = _round(request), _digest(request)
    run = request.app[RUN]
    stored = run.answer_of(board.device, round_id)
    if stored is not None and stored.digest == digest:
        return web.Response(headers={**offset_header(stored.size_bytes), "Upload-Complete": "1"})
    if stored is None:
        run.asked(board.device, round_id)
    size = request.app[UPLOADS].size(board.device, round_id, digest)
    return web.Response(headers={**offset_header(size), "Upload-Complete": "0"})


async def upload(request: web.Request) -> web.Response:
    """`PATCH /v1/uploads/{round}`: bytes from Upload-Offset on; the receipt once all are here."""
    board, run = board_of(request), request.app[RUN]
    check_media(request)
    round_id, digest = _round(request), _digest(request)
    length, offset = _count(request, "Upload-Length"), _count(request, "Upload-Offset")
    if receipt := run.answered(board.device, round_id, digest):
        return answer(receipt, board)
    run.asked(board.device, round_id)
    _check_length(length, run.terms.largest_upload_bytes)
    if offset > length:
        raise CallError("bad_request", f"Upload-Offset {offset} lies behind Upload-Length {length}")
    try:
        part = request.app[UPLOADS].take(board.device, round_id, digest, offset)
    except OffsetError as error:
        raise CallError("conflict", str(error), "Go on from there.", headers=offset_header(error.offset)) from error
    try:
        await receive(request, part, length - offset, board)
        return answer(await run.submit(board.device, round_id, digest, part), board)
    finally:
        part.release()


async def profile(request: web.Request) -> web.Response:
    """`POST /v1/profiles`. A board profiles once; a second profile gets the first one's receipt."""
    board, run = board_of(request), request.app[RUN]
    check_media(request)
    if receipt := run.answered(board.device, PROFILING, None):
        return answer(receipt, board)
    run.asked(board.device, PROFILING)
    length = request.content_length
    if length is None:
        raise CallError("bad_request", "a profile needs a Content-Length", status=411)
    _check_length(length, run.terms.largest_upload_bytes)
    part = request.app[UPLOADS].fresh(board.device)
    try:
        await receive(request, part, length, board)
        return answer(await run.submit(board.device, PROFILING, None, part), board)
    finally:
        part.release()


async def adapter(request: web.Request) -> web.StreamResponse:
    """`GET /v1/adapters/{version}?ranks=8.4.0`, and `&have=3&had=8.2.0` of a board that holds version 3 at those ranks;
    `had` may be left out where it is the same as `ranks`."""
    board, run = board_of(request), request.app[RUN]
    ranks = _ranks(request, "ranks")
    held = None
    if "have" in request.query:
        held = Held(_number("have", request.query["have"]), _ranks(request, "had") if "had" in request.query else ranks)
    cut = await run.adapter(_whole(request, "version"), ranks, held)
    if any(ranks):  # an evaluation asks for the context alone, and says nothing about the plan
        board.ranks = ranks
    return await send_file(request, cut.path, cut.digest, CONTENT_TYPE, board)


async def base_files(request: web.Request) -> web.Response:
    """`GET /v1/base`: names and sizes of the base's files."""
    board = board_of(request)
    files = request.app[BASE_FILES].items()
    listed = tuple(BaseFile(name=name, size_bytes=file.size_bytes) for name, file in files)
    return answer(BaseFiles(files=listed), board)


async def base_file(request: web.Request) -> web.StreamResponse:
    """`GET /v1/base/{file}`: config.json, tokenizer.json and *.safetensors of the base, nothing else."""
    board = board_of(request)
    name = request.match_info["file"]
    file = request.app[BASE_FILES].get(name)
    if file is None:
        raise CallError("not_found", f"the base has no file {name[:100]!r}", "GET /v1/base lists them.")
    path = request.app[BASE_FOLDER] / name
    return await send_file(request, path, file.digest, "application/octet-stream", board)


def _check_length(length: int, most: int) -> None:
    if length > most:
        raise CallError("too_large", f"a body of {length} bytes; this run's have at most {most}")
    if length < 1:
        raise CallError("bad_request", "the body is empty")


def _round(request: web.Request) -> int:
    number = _whole(request, "round")
    if not 1 <= number <= MAX_ROUNDS:
        raise CallError("bad_request", f"there is no round {number}")
    return number


def _ranks(request: web.Request, name: str) -> tuple[int, ...]:
    text = request.query.get(name, "")
    if len(text) > _MAX_RANKS_CHARS or not re.fullmatch(r"\d{1,3}(\.\d{1,3})*", text, re.ASCII):
        message = f"{name} must be numbers with dots between, one per weight"
        raise CallError("bad_request", message, f"Such as {name}=8.4.0")
    return tuple(int(rank) for rank in text.split("."))


def _whole(request: web.Request, name: str) -> int:
    return _number(name, request.match_info[name])


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise CallError("bad_request", f"{name} {text[:40]!r} is not a number")
    return int(text)


def _digest(request: web.Request) -> str:
    digest = request.headers.get("Upload-Digest", "")
    if not _DIGEST.match(digest):
        raise CallError("bad_request", "Upload-Digest must be the SHA-256 of the whole upload in lower-case hex")
    return digest


def _count(request: web.Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII):
        raise CallError("bad_request", f"{header} must be a number of bytes")
    return int(text)
