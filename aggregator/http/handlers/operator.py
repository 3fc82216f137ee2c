"""Calls of people and their monitoring: the page, the status, metrics and probes."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from aggregator.http.app_keys import GUARD, RUN, WORKER
from aggregator.http.callers import require_operator
from aggregator.report.page import CONTENT_SECURITY_POLICY, fragment, page
from aggregator.report.prometheus import exposition
from aggregator.report.status import describe


def _facts(request: web.Request) -> dict[str, Any]:
    return {**describe(request.app[RUN]), "guard": request.app[GUARD].facts()}


async def status(request: web.Request) -> web.Response:
    """`GET /v1/status`, JSON, for the operator."""
    require_operator(request)
    return web.json_response(_facts(request), headers={"Cache-Control": "no-store"})


async def index(request: web.Request) -> web.Response:
    """`GET /`: the same as a page, for the operator; `?part=1` gives the part that its script replaces."""
    require_operator(request)
    facts = _facts(request)
    text = fragment(facts) if "part" in request.query else page(facts)
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Referrer-Policy": "no-referrer",
    }
    return web.Response(text=text, content_type="text/html", headers=headers)


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`, Prometheus text, for the operator (`authorization` with the token in the scrape's settings)."""
    require_operator(request)
    headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    return web.Response(body=exposition(_facts(request)).encode(), headers=headers)


async def healthz(_request: web.Request) -> web.Response:
    """`GET /healthz`: the process answers."""
    return web.Response(text="ok\n")


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: the orchestrator is at work."""
    ready = not request.app[WORKER].done()
    return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)
