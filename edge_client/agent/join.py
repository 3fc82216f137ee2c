"""`edge-client join`: check the board, enrol, and do what the server says until the run is over.

The order is: everything that can be wrong on this side first, without a request; then the enrolment; then one long
poll after another. What is waiting for work has loaded neither torch nor numpy.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import msgspec

from edge_client.agent.base_download import find_base, read_config
from edge_client.agent.console import Console
from edge_client.agent.enrolment import client_version, enrol, prepare_identity
from edge_client.agent.events import Journal
from edge_client.agent.outage import Link
from edge_client.agent.reports import Reports
from edge_client.agent.settings import JoinSettings
from edge_client.agent.tasks import WATCH_EVERY_S, BoardSetup, BoardWork
from edge_client.data.readers import load_data
from edge_client.host.board import Board, parse_size, probe_board
from edge_client.host.forked import run_isolated
from edge_client.host.matmul_speed import matmul_key, settle_matmul_speed, with_matmul_speed
from edge_client.host.packages import require_packages
from edge_client.network.api import Api
from edge_client.network.retry import MAX_DELAY_S, MAX_RETRY_AFTER_S, Backoff
from edge_client.network.transport import Transport, parse_fingerprint
from edge_client.plan.cache_budget import CacheRoom, default_limit, parse_cache
from edge_client.plan.calibration import calibration_key, read_calibration, write_calibration
from edge_client.plan.planner import Planner
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits, parse_limits
from edge_client.state.folder import Identity, StateFolder
from edge_client.state.status import StatusFile
from edge_client.worker.process import WorkerProcess
from wire.messages import RunInfo

SOONEST_S = 1.0
"""Least time between two polls that brought nothing new: a server that answers at once must not be flooded."""


class DataSummary(msgspec.Struct, frozen=True):
    """What the client remembers of its data."""

    n_train: int
    n_held_out: int
    n_skipped: int
    first_skipped: str


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found before the first request. `cache_bytes`: disk for the encoder's output, 0 for none. `limits`: what
    a round may cost."""

    board: Board
    data: DataSummary
    folder: StateFolder
    identity: Identity
    cache_bytes: int = 0
    limits: RoundLimits = NO_LIMITS


def join(settings: JoinSettings, console: Console, worker: WorkerProcess | None = None) -> None:
    """Run until the run is finished, or SIGTERM or Ctrl-C asks to stop; both return. Raises ClientError otherwise."""
    found = preflight(settings, console)
    try:
        asyncio.run(_until_stopped(settings, found, console, worker or WorkerProcess()))
    finally:
        console.close()
        found.folder.unlock()


def preflight(settings: JoinSettings, console: Console) -> Preflight:
    """Check settings, packages, data, state folder and arithmetic, in this order, and take the folder's lock.

    Sends nothing.

    Raises ConfigError, DataError, DiskError or LockedError.
    """
    if settings.fingerprint:
        parse_fingerprint(settings.fingerprint)
    board = probe_board(parse_size(settings.memory) if settings.memory else None)
    cache_bytes = parse_cache(settings.cache)
    limits = parse_limits(settings.round_time, settings.round_traffic)
    require_packages()
    data = run_isolated(lambda: _summarise(settings.data), DataSummary)
    if data.n_skipped:
        console.notice(
            f"{data.n_skipped} unusable lines or files in {settings.data} are left out; first: {data.first_skipped}"
        )
    folder = StateFolder(settings.state)
    folder.lock()
    identity = prepare_identity(folder, settings)
    arithmetic = settle_matmul_speed(folder, settings.threads, console.notice)
    board = with_matmul_speed(board, arithmetic)
    if arithmetic is not None:
        limits = replace(limits, gflops=arithmetic.gflops)
    if cache_bytes is None:
        cache_bytes = default_limit(folder.path, folder.cache)
    if not cache_bytes:
        folder.empty_cache()
    return Preflight(board, data, folder, identity, cache_bytes, limits)


def _summarise(spec: str) -> DataSummary:
    data = load_data(spec)
    return DataSummary(len(data.train), len(data.held_out), data.n_skipped, data.first_skipped)


async def _until_stopped(settings: JoinSettings, found: Preflight, console: Console, worker: WorkerProcess) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # a second one ends the client the hard way
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        async with open_client(settings, found, console, worker) as client:
            await client.run_to_end()
    except asyncio.CancelledError:
        console.notice("stopped; what was done is kept, `edge-client join` goes on from here")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a client works with; `sleep`, `watch_every_s` and `measure` are other ones in tests."""

    api: Api
    link: Link
    journal: Journal
    status: StatusFile
    worker: WorkerProcess
    sleep: Callable[[float], Awaitable[None]]
    watch_every_s: float
    measure: Callable[[], Board]


class Client:
    """An enrolled board, or one about to be."""

    def __init__(self, settings: JoinSettings, found: Preflight, parts: _Parts) -> None:
        self._settings, self._found, self._parts = settings, found, parts
        self._api, self._journal = parts.api, parts.journal

    async def run_to_end(self) -> None:
        """Do what the server says until it says that the run is finished."""
        identity, run = await self._enrolled()
        self._parts.status.update(
            at_once=True, device=identity.device, run_id=run.run_id, rounds=run.rounds, online=True, phase="checking"
        )
        work = await self._prepare(identity.device, run)
        after, repeats, before = -1, 0, ""
        while (task := await self._api.work(after=after)).kind != "finished":
            if task.kind == "wait":
                self._journal.waiting(task)
                await self._parts.sleep(min(max(task.retry_after_s, SOONEST_S), MAX_RETRY_AFTER_S))
                continue
            task = work.to_do(task)
            # The server asks for the same again only if it lost what it was sent: go on, but ever more slowly.
            key = f"{task.kind} {task.spec.round} {task.spec.version}"
            repeats, before = (repeats + 1 if key == before else 0), key
            await self._parts.sleep(min(2.0**repeats - 1, MAX_DELAY_S))
            await work.carry_out(task)
            if task.kind == "train":
                after = task.spec.round
        self._journal.finished(task)

    async def _enrolled(self) -> tuple[Identity, RunInfo]:
        """The device that this board is, enrolling only if it is none yet."""
        identity = self._found.identity
        if identity.credential:
            return identity, await self._api.run()
        identity, run = await enrol(self._api, self._found.folder, identity, self._settings, self._parts.link)
        self._api.transport.credential = identity.credential
        self._journal.enrolled(identity, run)
        return identity, run

    async def _prepare(self, device: str, run: RunInfo) -> BoardWork:
        """Check the base and show a first plan, so that what cannot work is known before the first task."""
        found, console = self._found, self._journal.console
        base_folder = await find_base(self._settings.model, run, self._api, found.folder.path / "base", console)
        n_evaluated = min(self._settings.eval_examples, found.data.n_held_out)
        room = CacheRoom(found.cache_bytes, found.data.n_train, n_evaluated)
        key = calibration_key(run.base.digest, client_version(), matmul_key(self._settings.threads) or "no torch")
        planner = Planner(
            found.board,
            read_config(base_folder, run).to_json(),
            room,
            found.limits,
            read_calibration(found.folder, key),
            keep=lambda calibration: write_calibration(found.folder, calibration),
            measure=self._parts.measure,
        )
        setup = BoardSetup(
            device=device,
            base_folder=base_folder,
            data=self._settings.data,
            n_held_out=found.data.n_held_out,
            threads=self._settings.threads,
            eval_examples=self._settings.eval_examples,
            work=found.folder.work,
            held=found.folder.held,
            residual=found.folder.residual,
            pruned=found.folder.pruned,
            cache=found.folder.cache,
            cache_bytes=found.cache_bytes,
        )
        work = BoardWork(
            setup,
            api=self._api,
            worker=self._parts.worker,
            planner=planner,
            journal=self._journal,
            watch_every_s=self._parts.watch_every_s,
        )
        plan = planner.choose(run, work.pruned(run, run.round))
        await self._journal.plan(run.round, plan, planner.why(run, plan))
        return work


@asynccontextmanager
async def open_client(
    settings: JoinSettings,
    found: Preflight,
    console: Console,
    worker: WorkerProcess,
    *,
    new_backoff: Callable[..., Backoff] = Backoff,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    watch_every_s: float = WATCH_EVERY_S,
    measure: Callable[[], Board] = probe_board,
) -> AsyncIterator[Client]:
    """A client with all that it needs, closed again in the opposite order."""
    identity = found.identity
    status = StatusFile(found.folder)
    status.update(server=identity.server, device=identity.device, pid=os.getpid(), phase="connecting", at_once=True)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(worker.close)
        transport = Transport(identity.server, credential=identity.credential, fingerprint=identity.fingerprint)
        await stack.enter_async_context(transport)
        link = Link(console, on_change=lambda online: status.update(at_once=True, online=online))
        api = Api(transport, link, new_backoff)
        reports = await stack.enter_async_context(Reports(api))
        journal = Journal(console, status, reports, transport.traffic)
        parts = _Parts(api, link, journal, status, worker, sleep, watch_every_s, measure)
        yield Client(settings, found, parts)
