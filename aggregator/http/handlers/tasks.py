"""Calls between a board's transfers: the run's settings and history, its next task, its reports."""

from __future__ import annotations

import msgspec
from aiohttp import web

from aggregator.http.app_keys import GUARD, RUN, STORE
from aggregator.http.callers import board_of, credential_hash_of, participant_of
from aggregator.http.streaming import answer, read_message
from aggregator.run import tasks
from aggregator.run.fleet import Board
from aggregator.run.identity.copies import notice_of
from aggregator.store.credentials import is_due
from wire.limits import MAX_HISTORY
from wire.messages import History, Report, Version
from wire.routes import WorkQuery, whole_number

TOLD = frozenset({"event", "ended", "data"})
"""Kinds of reports that people read of in the log, however often they come."""

STORED = frozenset({"plan", "evaluation"})
"""Other kinds that outlive a restart."""


async def run_info(request: web.Request) -> web.Response:
    """`GET /v1/run`."""
    board = board_of(request)
    await _came(request, board)
    return answer(tasks.run_info(request.app[RUN]), board)


async def work(request: web.Request) -> web.Response:
    """`GET /v1/work?wait=S&after=R&epoch=E`: the task at once, or as soon as there is one within S seconds.

    `after`: the last round that the board has answered or given up; it is not told about it again.
    """
    board = participant_of(request)
    query = WorkQuery.decode(request.query)
    await _came(request, board)
    task = await request.app[RUN].polls.next_task(board, query.after, query.wait_s, query.epoch)
    renew = is_due(board.credential_at, request.app[STORE].wall_clock())
    return answer(msgspec.structs.replace(task, renew=renew, notice=notice_of(board, request.app[RUN].clock())), board)


async def history(request: web.Request) -> web.Response:
    """`GET /v1/versions?after=V`: the digests of the versions after V."""
    board = board_of(request)
    after = whole_number("after", request.query.get("after", "0"))
    rows = request.app[RUN].storage.records.history(after, MAX_HISTORY)
    return answer(History(versions=tuple(Version(version=version, digest=digest) for version, digest in rows)), board)


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


async def _came(request: web.Request, board: Board) -> None:
    """A board asks what to do: it is back, if it had said that it leaves; and it uses its next credential, if it had
    one."""
    submissions = request.app[RUN].submissions
    await submissions.take_credential(board, credential_hash_of(request))
    await submissions.returned(board)
