"""What a board asks and tells: the run's settings, its next task, its numbers."""

from __future__ import annotations

import math

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.app_keys import RUN
from aggregator.http.callers import board_of
from aggregator.http.streaming import answer, read_message
from wire.messages import Report


async def run_info(request: web.Request) -> web.Response:
    """`GET /v1/run`."""
    board = board_of(request)
    return answer(request.app[RUN].info(), board)


async def work(request: web.Request) -> web.Response:
    """`GET /v1/work?wait=S&after=R`: the task at once, or as soon as there is one within S seconds.

    `after`: the last round that the board has answered or given up; it is not told about it again.
    """
    board = board_of(request)
    wait_s = _number(request, "wait", 0.0)
    after = int(_number(request, "after", -1.0))
    return answer(await request.app[RUN].polls.next_task(board, after, wait_s), board)


async def report(request: web.Request) -> web.Response:
    """`POST /v1/reports`."""
    board = board_of(request)
    await request.app[RUN].report(board.device, await read_message(request, Report, board))
    return web.Response(status=204)


def _number(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1e9:
        raise CallError("bad_request", f"{name}={text[:40]!r} is no number that is allowed here")
    return value
