"""Calls between a board's transfers: the run's settings, its next task, its reports."""

from __future__ import annotations

from aiohttp import web

from aggregator.http.app_keys import GUARD, RUN
from aggregator.http.callers import board_of
from aggregator.http.streaming import answer, read_message
from aggregator.run import tasks
from wire.messages import Report
from wire.routes import WorkQuery

TOLD = frozenset({"event", "ended", "data"})
"""Kinds of reports that people read of in the log, however often they come."""

STORED = frozenset({"plan", "evaluation"})
"""Other kinds that outlive a restart."""


async def run_info(request: web.Request) -> web.Response:
    """`GET /v1/run`."""
    board = board_of(request)
    await request.app[RUN].submissions.returned(board)
    return answer(tasks.run_info(request.app[RUN]), board)


async def work(request: web.Request) -> web.Response:
    """`GET /v1/work?wait=S&after=R`: the task at once, or as soon as there is one within S seconds.

    `after`: the last round that the board has answered or given up; it is not told about it again.
    """
    board = board_of(request)
    query = WorkQuery.decode(request.query)
    await request.app[RUN].submissions.returned(board)
    return answer(await request.app[RUN].polls.next_task(board, query.after, query.wait_s), board)


async def report(request: web.Request) -> web.Response:
    """`POST /v1/reports`."""
    board = board_of(request)
    message = await read_message(request, Report, board)
    if message.kind in TOLD:
        request.app[GUARD].note(board.device)
    elif message.kind in STORED:
        request.app[GUARD].write(board.device)
    await request.app[RUN].submissions.report(board.device, message)
    return web.Response(status=204)
