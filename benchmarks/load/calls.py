"""The calls of a fleet: how long each kind took, and how often one failed, measured in the client's own transport."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.load.times import Times
from edge_client.errors import ClientError
from edge_client.network.errors import ThrottledError, Unavailable
from edge_client.network.transport import Transport
from wire import routes

TASK, RECEIPT = "hear of a task", "hear the judgement"
"""What boards wait for in long polls: for how long says how soon the server told them, not how fast it answers."""

_NAMES = {
    routes.ENROL: "enrol",
    routes.RUN: "run",
    routes.WORK: "long poll",
    routes.ADAPTER: "adapter",
    routes.UPLOAD_STATE: "upload state",
    routes.UPLOAD: "upload",
    routes.RECEIPT: "receipt",
    routes.REPORT: "report",
}

_WAITING = frozenset({"long poll", "receipt"})


@dataclass(slots=True)
class Calls:
    """The calls of all boards.

    Attributes:
        times: of the calls that were answered, by name; those that wait for news are left out.
        waits: how long boards waited for news, by TASK and RECEIPT.
        timeouts: calls that the client gave up by its own time-outs, by name.
        throttled: calls that the server asked to make later (429), by name.
        errors: other calls without a usable answer, by name and class.
        n_answered: calls that were answered, those that wait included.
    """

    times: defaultdict[str, Times] = field(default_factory=lambda: defaultdict(Times))
    waits: defaultdict[str, Times] = field(default_factory=lambda: defaultdict(Times))
    timeouts: Counter[str] = field(default_factory=Counter)
    throttled: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    n_answered: int = 0

    def answered(self, name: str, seconds: float) -> None:
        self.n_answered += 1
        if name not in _WAITING:
            self.times[name].seconds.append(seconds)

    def failed(self, name: str, error: ClientError) -> None:
        if is_timeout(error):
            self.timeouts[name] += 1
        elif isinstance(error, ThrottledError):
            self.throttled[name] += 1
        else:
            self.errors[f"{name}: {type(error).__name__}: {error.message[:100]}"] += 1


class MeasuredTransport(Transport):
    """The client's transport, unchanged but for a clock beside it."""

    def __init__(self, server: str, calls: Calls, **options: Any) -> None:
        super().__init__(server, **options)
        self._calls = calls

    @asynccontextmanager
    async def open(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, as the client makes it; timed until its answer has been read."""
        name, began_s = call_name(method, path), time.monotonic()
        try:
            async with super().open(method, path, **options) as response:
                yield response
        except ClientError as error:
            self._calls.failed(name, error)
            raise
        self._calls.answered(name, time.monotonic() - began_s)


def call_name(method: str, path: str) -> str:
    """The name of a call in people's words."""
    for call, name in _NAMES.items():
        if call.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", call.path), path):
            return name
    return f"{method} {path}"


def is_timeout(error: ClientError) -> bool:
    """Whether a call failed because the client would wait no longer, for a connection or for bytes."""
    causes = (asyncio.TimeoutError, TimeoutError, aiohttp.ServerTimeoutError)
    return isinstance(error, Unavailable) and isinstance(error.__cause__, causes)
