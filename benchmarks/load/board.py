"""A board of a fleet: all that a client says to its server, by the client's own network code, and no training."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.load.calls import RECEIPT, TASK, Calls, MeasuredTransport
from benchmarks.load.prepared import Prepared, ranks_of
from braid_common.base.files import file_digest
from edge_client.agent.reports import Reports
from edge_client.agent.watch import pause_s
from edge_client.errors import ClientError
from edge_client.jobs.messages import Progress
from edge_client.network.api import Api
from edge_client.network.errors import Unavailable
from edge_client.network.retry import Backoff, retry
from wire.limits import PROTOCOL_VERSION
from wire.messages import Enrol, Task
from wire.routes import PROFILING, Held
from wire.run import RunInfo

RANKS = (4, 8, 16)
"""Ranks of the boards, in turn: they are of three sizes."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An update or profile that a server has accepted: whose, of which round, and its digest."""

    device: str
    round: int
    digest: str


@dataclass(slots=True)
class Fleet:
    """Facts and counts that the boards of one server share.

    Attributes:
        url, fingerprint, token: of the server.
        folder: for the boards' files.
        train_s: seconds that a round's training takes. All boards train at the same time: the worst case.
        calls: what their calls took.
        prepared: what they send.
        accepted, refused: uploads by what the server said of them.
        n_finished: boards whose run is over.
        heard_at: when the first board heard of a task, by its kind, round and version.
    """

    url: str
    fingerprint: str
    token: str
    folder: Path
    train_s: float = 0.0
    calls: Calls = field(default_factory=Calls)
    prepared: Prepared = field(default_factory=Prepared)
    accepted: set[Sent] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    n_finished: int = 0
    heard_at: dict[tuple[str, int, int], float] = field(default_factory=dict)


class Board:
    """One board, from its enrolment to the end of the run."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet, self._number = fleet, number
        self._folder = fleet.folder / f"{number}"
        self._folder.mkdir()
        self._device, self._ranks = "", tuple[int, ...]()
        self._held: Held | None = None
        self._has_told_plan = False

    async def live(self) -> None:
        """Do what the server says until it says that the run is finished. Raises ClientError as a client does."""
        fleet = self._fleet
        transport = MeasuredTransport(
            fleet.url, fleet.calls, fingerprint=fleet.fingerprint, session=secrets.token_hex(16)
        )
        async with transport:
            api = Api(transport)
            run = await self._enrol(api)
            async with Reports(api) as reports:
                await self._work(api, reports, run)
        fleet.n_finished += 1

    async def _enrol(self, api: Api) -> RunInfo:
        message = Enrol(
            protocol=PROTOCOL_VERSION,
            token=self._fleet.token,
            install_id=f"{self._number:032x}",
            name=f"board-{self._number}",
            client_version="load",
        )
        enrolled = await retry(partial(api.enrol, message), Backoff())
        api.transport.credential, self._device = enrolled.credential, enrolled.device
        self._ranks = ranks_of(enrolled.run, RANKS[self._number % len(RANKS)])
        return enrolled.run

    async def _work(self, api: Api, reports: Reports, run: RunInfo) -> None:
        after, epoch = -1, ""
        while (task := await self._next_task(api, after, epoch)).kind != "finished":
            if task.kind == "wait":
                await asyncio.sleep(pause_s(task))
            elif task.kind == "profile":
                await self._profile(api, reports)
            elif task.kind == "train":
                await self._train(api, reports, task)
                after, epoch = task.spec.round, task.epoch
            else:
                await self._evaluate(api, reports, task)

    async def _next_task(self, api: Api, after: int, epoch: str) -> Task:
        began_s = time.monotonic()
        task = await api.work(after=after, epoch=epoch)
        now_s = time.monotonic()
        if task.kind != "wait":
            first_s = self._fleet.heard_at.setdefault((task.kind, task.spec.round, task.spec.version), now_s)
            self._fleet.calls.waits[TASK].seconds.append(now_s - max(first_s, began_s))
        return task

    async def _profile(self, api: Api, reports: Reports) -> None:
        run = await api.run()
        await self._tell_plan(reports, 0)
        result = self._file("result")
        result.write_bytes(await self._fleet.prepared.profile(run, self._number))
        await self._send(api, PROFILING, result)

    async def _train(self, api: Api, reports: Reports, task: Task) -> None:
        fleet, spec = self._fleet, task.spec
        run = await api.run()
        await self._tell_plan(reports, spec.round)
        adapter = self._file("adapter")
        held = self._held if fleet.prepared.knows(spec, self._ranks) else None
        await api.adapter(run, spec.version, self._ranks, adapter, held)
        # Another board of this size may have fetched the whole in the meantime; its update is as good as one of ours.
        result = self._file("result")
        result.write_bytes(await fleet.prepared.update(run, spec, self._ranks, adapter, self._number))
        adapter.unlink()
        self._held = Held(spec.version, self._ranks, spec.version_digest)
        progress = Progress(phase="train", step=1, steps=1, loss=1.0, tokens_per_s=1.0, peak_bytes=1)
        reports.progress(spec.round, spec.version, progress, {})
        await asyncio.sleep(fleet.train_s)
        await self._send(api, spec.round, result)
        await reports.evaluation(spec.round, spec.version, {"loss": 1.0, "n_examples": 10.0})

    async def _evaluate(self, api: Api, reports: Reports, task: Task) -> None:
        run, adapter = await api.run(), self._file("adapter")
        await api.adapter(run, task.spec.version, [0] * len(run.weights), adapter)
        adapter.unlink()
        await reports.evaluation(task.spec.round, task.spec.version, {"loss": 1.0, "n_examples": 10.0})

    async def _tell_plan(self, reports: Reports, round_id: int) -> None:
        if not self._has_told_plan:
            self._has_told_plan = True
            await reports.plan(round_id, "bf16", "bf16", {"ranks_total": sum(self._ranks)})

    async def _send(self, api: Api, round_id: int, source: Path) -> None:
        fleet, began_s = self._fleet, time.monotonic()
        receipt = await api.upload(round_id, source)
        fleet.calls.waits[RECEIPT].seconds.append(time.monotonic() - began_s)
        if receipt.accepted:
            fleet.accepted.add(Sent(self._device, round_id, file_digest(source)))
        else:
            fleet.refused.append(receipt.reason)
        source.unlink()

    def _file(self, name: str) -> Path:
        return self._folder / name


async def live(board: Board, failures: list[str]) -> None:
    """A board's whole life; what ends it early is noted, and ends no other board."""
    try:
        await board.live()
    except Unavailable as error:
        failures.append(f"gave up: {error.message}")
    except ClientError as error:
        failures.append(f"{type(error).__name__}: {error.message}")
