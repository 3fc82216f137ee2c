"""The HTTP application: routes, the one place where errors become answers, and the orchestrator's life beside them."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from types import MappingProxyType

from aiohttp import web

from aggregator.errors import CallError, DiskError, StateError
from aggregator.http.app_keys import (
    BASE_FILES,
    BASE_FOLDER,
    CERTIFICATES,
    GUARD,
    OPERATOR_HASH,
    RUN,
    STORE,
    UPLOADS,
    WORKER,
)
from aggregator.http.certificates import Certificates
from aggregator.http.guard.connection import SERVER
from aggregator.http.guard.guard import Guard, address_of
from aggregator.http.guard.limits import Limits
from aggregator.http.guard.nuisances import Nuisance
from aggregator.http.handlers import enrolment, operator, tasks, transfers
from aggregator.http.middlewares import Handler, expected, in_turn, patience, sensible, watched
from aggregator.http.tls import Tls
from aggregator.run.setup import Opened
from aggregator.run.tasks import shut_out
from aggregator.run.upkeep.trouble import is_full
from aggregator.store.records import ShutOutError
from aggregator.store.uploads import SupersededError
from braid_common.units import printable
from wire import routes
from wire.codec import CONTENT_TYPE, encode
from wire.errors import ProtocolVersionError, WireError
from wire.limits import MAX_TEXT_CHARS
from wire.messages import Refusal, RefusalCode

FOR_PEOPLE = frozenset({routes.INDEX.path, routes.STATUS.path, routes.METRICS.path})
"""Calls whose errors are plain text: no program of ours reads them."""

RETRY_AFTER_S = 30
"""When the disk is full: a person has to act, so asking again sooner is of no use."""

NUISANCES: Mapping[int, Nuisance] = MappingProxyType({400: Nuisance.NONSENSE, 413: Nuisance.TOO_LARGE})
"""Answers that are counted. Boards of ours get none of them."""

WATCH_EVERY_S = 1.0
"""Between two looks at connections and counts."""

HANDLERS: Mapping[routes.Call, Handler] = MappingProxyType(
    {
        routes.ENROL: enrolment.enrol,
        routes.PROOF: enrolment.prove,
        routes.LEAVE: enrolment.leave,
        routes.RENEW: enrolment.renew,
        routes.RUN: tasks.run_info,
        routes.WORK: tasks.work,
        routes.REPORT: tasks.report,
        routes.UPLOAD_STATE: transfers.upload_offset,
        routes.UPLOAD: transfers.upload,
        routes.RECEIPT: transfers.receipt,
        routes.HISTORY: tasks.history,
        routes.ADAPTER: transfers.adapter,
        routes.BASE: transfers.base_files,
        routes.BASE_FILE: transfers.base_file,
        routes.STATUS: operator.status,
        routes.METRICS: operator.metrics,
        routes.HEALTHZ: operator.healthz,
        routes.READYZ: operator.readyz,
        routes.INDEX: operator.index,
    }
)
"""Every call of the protocol and who answers it."""

log = logging.getLogger("aggregator")


def make_app(
    opened: Opened, operator_hash: str, certificates: Certificates | None = None, limits: Limits | None = None
) -> web.Application:
    """The application of one run. Starting it starts the orchestrator, stopping it stops it cleanly.

    `certificates`: the one that the server shows; None where it speaks plain HTTP.
    """
    # client_max_size bounds request.read() only; bodies are streamed and counted by aggregator.http.streaming.
    app = web.Application(middlewares=[watched, refusals, in_turn, patience, sensible])
    app[RUN], app[STORE], app[UPLOADS] = opened.run, opened.store, opened.uploads
    app[BASE_FOLDER], app[BASE_FILES] = opened.config.model.path, opened.base_files
    for name, file in opened.base_files.items():  # as they were when they were read
        opened.run.sound_files.trust(opened.config.model.path / name, (file.size_bytes, file.changed_ns))
    app[OPERATOR_HASH] = operator_hash
    app[CERTIFICATES] = certificates or Certificates(Tls(None), lambda: Tls(None))
    app[GUARD] = Guard(limits or Limits(), opened.run.clock)
    for call, handler in HANDLERS.items():
        if call.method == "GET":  # which answers HEAD as well, where HEAD is no call of its own
            allow_head = call is not routes.RECEIPT
            app.router.add_get(call.path, handler, allow_head=allow_head, expect_handler=expected)
        else:
            app.router.add_route(call.method, call.path, handler, expect_handler=expected)
    app.on_response_prepare.append(_without_versions)
    app.cleanup_ctx.append(_guarding)
    app.cleanup_ctx.append(_orchestrating)
    app.on_shutdown.append(_release_polls)
    return app


async def _orchestrating(app: web.Application) -> AsyncIterator[None]:
    worker = asyncio.create_task(app[RUN].work_forever(), name="orchestrator")
    app[WORKER] = worker
    yield
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    await app[RUN].save_traffic()


async def _guarding(app: web.Application) -> AsyncIterator[None]:
    """Look after connections, and tell of nuisances, once a second; of those not told yet at the end."""

    async def look() -> None:
        while True:
            _warn(app[GUARD].watch())
            await asyncio.sleep(WATCH_EVERY_S)

    looking = asyncio.create_task(look(), name="guard")
    yield
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    _warn(app[GUARD].nuisances.lines(math.inf))


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        log.warning("%s", printable(line))


async def _without_versions(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


async def _release_polls(app: web.Application) -> None:
    app[RUN].polls.stop()
    app[RUN].inbox.stop()


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a Refusal; handlers only raise."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _answer(request, _of_http(error))
    except ConnectionError:
        raise  # nobody is left to answer
    except Exception as error:  # noqa: BLE001 - one of the two top loops: whatever happens, the server goes on
        return _answer(request, _call_error(error))


def _call_error(error: Exception) -> CallError:
    """The one table from errors to answers. What is not in it is a bug of ours, and logged with its traceback."""
    if isinstance(error, CallError):
        return error
    if isinstance(error, ProtocolVersionError):
        return CallError("protocol_version", str(error))
    if isinstance(error, WireError):
        return CallError("bad_request", str(error))
    if isinstance(error, ShutOutError):  # while it was sending
        return shut_out(error)
    if isinstance(error, SupersededError):  # by another request, or because the round closed: asking again tells which
        return CallError("busy", "this upload is no longer this request's", headers={"Retry-After": "1"})
    if is_full(error):
        log.error("no room is left: %s; free some space, boards try again", error)
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        return CallError("full", "the server's disk is full", "It goes on once there is room.", headers=retry)
    if isinstance(error, StateError):
        log.error("%s %s", error.message, error.hint)
        return CallError("busy", "the server's data is damaged", headers={"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, DiskError) or (isinstance(error, OSError) and error.errno in (errno.EIO, errno.EROFS)):
        log.error("the disk cannot be used: %s; boards try again", error)
        return CallError("busy", "the server cannot use its disk", headers={"Retry-After": str(RETRY_AFTER_S)})
    log.error("a call failed; please report this", exc_info=error)
    return CallError("internal", "the server made a mistake", "Its log has the details.")


def _of_http(error: web.HTTPException) -> CallError:
    if error.status == 404:
        return CallError(
            "not_found",
            "there is no such call",
            "Is the path in the address right? It is a proxy's prefix (docs/guide/proxy.md), or nothing.",
        )
    code: RefusalCode = "too_large" if error.status == 413 else "bad_request"
    allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return CallError(code, error.reason or "bad request", headers=allow, status=error.status)


def _answer(request: web.Request, error: CallError) -> web.Response:
    """The answer to an error. Its words may quote the request, of which not every byte can be sent back."""
    if error.status >= 500:
        log.warning("%s %s: %s", request.method, printable(request.path), printable(error.message))
    elif error.status in NUISANCES:
        request.app[GUARD].nuisances.count(NUISANCES[error.status], address_of(request))
    message, hint = printable(error.message)[:MAX_TEXT_CHARS], printable(error.hint)[:MAX_TEXT_CHARS]
    if request.path in FOR_PEOPLE:
        return web.Response(text=f"{message}\n{hint}\n", status=error.status, headers=error.headers)
    body = encode(Refusal(code=error.code, message=message, hint=hint))
    return web.Response(body=body, status=error.status, headers={**error.headers, "Content-Type": CONTENT_TYPE})
