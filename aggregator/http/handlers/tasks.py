"""Calls between a board's transfers: the run's settings, its next task, its reports."""

from __future__ import annotations

from aiohttp import web

from aggregator.http.app_keys import RUN
from aggregator.http.callers import board_of
from aggregator.http.streaming import answer, read_message
from aggregator.run import tasks
from wire.messages import Report
from wire.routes import WorkQuery


async def run_info(request: web.Request) -> web.Response:
    """`GET /v1/run`."""
    board = board_of(request)
    await request.app[RUN].submissions.returned(board)
    return answer(tasks.run_info(request.app[RUN]), board)


async def work(request: web.Request) -> web.Response:
    """`GET /v1/work?wait=S&after=R&epoch=E`: the task at once, or as soon as there is one within S seconds.

    `after`: the last round that the board has answered or given up; it is not told about it again.
    """
    board = board_of(request)
    query = WorkQuery.decode(request.query)
    await request.app[RUN].submissions.returned(board)
    return answer(await request.app[RUN].polls.next_task(board, query.after, query.wait_s, query.epoch), board)


async def report(request: web.Request) -> web.Response:
    """`POST /v1/reports`."""
    board = board_of(request)
    await request.app[RUN].submissions.report(board.device, await read_message(request, Report, board))
    return web.Response(status=204)
