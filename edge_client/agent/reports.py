"""Reports: numbers that a board sends to its server for people to look at.

They must never hold up the work, so progress is sent beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping
from types import MappingProxyType

from braid_common import metrics
from edge_client.errors import ClientError
from edge_client.jobs.messages import Progress
from edge_client.network.api import Api
from edge_client.network.errors import ConflictError, GoneError, RequestError
from wire.limits import MAX_METRICS
from wire.messages import Report
from wire.text_lengths import TextLengths

PROGRESS_EVERY_S = 2.0
"""Between two progress reports of one board: 1,000 boards then cost the server 500 small requests a second at most."""


_COSTS: Mapping[str, str] = MappingProxyType(
    {
        "loss": metrics.TRAIN_LOSS,
        "seconds": metrics.TRAIN_S,
        "encode_s": metrics.ENCODE_S,
        "tokens_per_s": metrics.TRAIN_TOKENS_PER_S,
        "peak_bytes": metrics.TRAIN_PEAK_BYTES,
        "joules": metrics.TRAIN_JOULES,
    }
)
"""What the worker calls the costs of a round, and what they are called in reports."""


def round_costs(values: Mapping[str, float]) -> dict[str, float]:
    """The costs of a round, as reports name them, of the numbers of the worker that trained it."""
    return {metric: values[name] for name, metric in _COSTS.items() if name in values}


class Reports:
    """Sends reports, progress in a task of its own and the newest only. Use as `async with`."""

    def __init__(self, api: Api, *, every_s: float = PROGRESS_EVERY_S) -> None:
        self._api, self._every_s = api, every_s
        self._newest: Report | None = None
        self._notes: list[Report] = []
        self._fresh = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Reports:
        self._task = asyncio.create_task(self._send_progress())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def progress(self, round_id: int, version: int, progress: Progress, extra: Mapping[str, float]) -> None:
        """Remember where the worker is; sent soon, unless a newer one replaces it."""
        values = {
            "step": progress.step,
            "steps": progress.steps,
            "loss": progress.loss,
            "tokens_per_s": progress.tokens_per_s,
            "peak_bytes": progress.peak_bytes,
            **extra,
        }
        self._newest = _report("progress", round_id, version, values, text=progress.phase)
        self._fresh.set()

    async def plan(self, round_id: int, format: str, compute: str, numbers: Mapping[str, float]) -> None:
        """Send the plan that this board trains by."""
        await self._send(_report("plan", round_id, 0, numbers, text=f"{format} base, {compute} arithmetic"))

    async def text_lengths(self, round_id: int, lengths: TextLengths) -> None:
        """Send how long this board's texts are."""
        await self._send(_report("data", round_id, 0, lengths.values()))

    async def event(self, round_id: int, text: str, numbers: Mapping[str, float]) -> None:
        """Tell the server's log one sentence."""
        await self._send(_report("event", round_id, 0, numbers, text=text))

    def note(self, round_id: int, text: str) -> None:
        """Tell the server's log one sentence beside the work, in a call that may be made from where nothing waits."""
        self._notes.append(_report("event", round_id, 0, {}, text=text))
        self._fresh.set()

    async def evaluation(self, round_id: int, version: int, values: Mapping[str, float]) -> None:
        """Send an evaluation, waiting for the server if need be."""
        await self._send(_report("evaluation", round_id, version, values))

    async def _send(self, report: Report) -> None:
        # A report that the server will not have must not hold up the work.
        with contextlib.suppress(GoneError, ConflictError, RequestError):
            await self._api.report(report)

    async def _send_progress(self) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            # The main path meets the same error at its next call and acts on it; here nothing may stop.
            with contextlib.suppress(ClientError):
                while self._notes:
                    await self._api.report(self._notes[0], patient=False)
                    del self._notes[0]
                if self._newest is not None:
                    await self._api.report(self._newest, patient=False)
            await asyncio.sleep(self._every_s)


def _report(kind: str, round_id: int, version: int, values: Mapping[str, float], text: str = "") -> Report:
    """A report with the values that the wire allows: finite, and no more than MAX_METRICS."""
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    return Report(
        kind=kind,  # type: ignore[arg-type]
        round=round_id,
        version=version,
        text=text,
        values=dict(list(finite.items())[:MAX_METRICS]),
    )
