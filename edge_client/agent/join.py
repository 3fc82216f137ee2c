"""`edge-client join`: check the board, enrol, and do what the server says until the run is over.

The order is: everything that can be wrong on this side first, without a request (`agent/preflight.py`); then the
enrolment; then one long poll after another. A client that waits for work has loaded neither torch nor numpy.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from edge_client.agent.board_setup import BoardSetup
from edge_client.agent.console import Console
from edge_client.agent.downloads.base import find_base, read_config
from edge_client.agent.enrolment import client_version, destination, enrol, follow
from edge_client.agent.events import Events
from edge_client.agent.farewell import say_farewell, say_farewell_from
from edge_client.agent.outage import Outage
from edge_client.agent.preflight import PROBES, Preflight, Probes, preflight
from edge_client.agent.renewal import Renewal
from edge_client.agent.reports import Reports
from edge_client.agent.run_trust import RunTrust
from edge_client.agent.settings import JoinSettings
from edge_client.agent.task_plans import TaskPlans
from edge_client.agent.tasks import TaskRunner
from edge_client.agent.text_lengths import run_with_lengths
from edge_client.agent.watch import WATCH_EVERY_S, Watch, pause_s
from edge_client.errors import ClientError
from edge_client.host.board import Board, probe_board
from edge_client.host.matmul_speed import matmul_key
from edge_client.network.api import Api
from edge_client.network.errors import UnknownCredentialError
from edge_client.network.retry import MAX_DELAY_S, Backoff
from edge_client.network.transport import Transport
from edge_client.plan.cache_budget import CacheBudget
from edge_client.plan.calibration import calibration_key
from edge_client.plan.planner import Planner
from edge_client.plan.situation import Situation
from edge_client.state.calibration_file import read_calibration, write_calibration
from edge_client.state.folder import Identity
from edge_client.state.status import StatusFile
from edge_client.worker.process import WorkerProcess
from wire.run import RunInfo


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The time and the board that a client lives with.

    Attributes:
        new_backoff: makes the pauses of one call; takes the keyword arguments of Backoff.
        sleep: waits so many seconds.
        watch_every_s: seconds between two looks whether a task's result is still wanted.
        measure: looks at the board's memory anew, when it ran short.
    """

    new_backoff: Callable[..., Backoff] = Backoff
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    watch_every_s: float = WATCH_EVERY_S
    measure: Callable[[], Board] = probe_board


REAL = Surroundings()
"""The clock on the wall, and this board."""


def join(
    settings: JoinSettings, console: Console, worker: WorkerProcess | None = None, probes: Probes = PROBES
) -> None:
    """Run until the run is finished, or SIGTERM or Ctrl-C asks to stop; both return. Raises ClientError otherwise."""
    try:
        checked = preflight(settings, console, probes)
    except ClientError as error:
        asyncio.run(say_farewell_from(settings.state, error))
        raise
    try:
        asyncio.run(_until_stopped(settings, checked, console, worker or WorkerProcess()))
    finally:
        console.close()
        checked.folder.unlock()


async def _until_stopped(settings: JoinSettings, checked: Preflight, console: Console, worker: WorkerProcess) -> None:
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
        async with open_client(settings, checked, console, worker) as client:
            await client.run_to_end()
    except asyncio.CancelledError:
        console.notice("stopped; what was done is kept, `edge-client join` goes on from here")


class Client:
    """A board that is enrolled, or about to be."""

    def __init__(
        self,
        settings: JoinSettings,
        checked: Preflight,
        worker: WorkerProcess,
        surroundings: Surroundings,
        *,
        api: Api,
        events: Events,
        outage: Outage,
    ) -> None:
        self._settings, self._checked, self._worker, self._surroundings = settings, checked, worker, surroundings
        self._api, self._events, self._outage = api, events, outage
        self._renewal = Renewal(api, checked.folder, events.console.notice)
        self._trust = RunTrust(api, checked.folder, events)
        api.check_run = self._trust.check

    async def run_to_end(self) -> None:
        """Do what the server says until it says that the run is finished; it is told of any other end."""
        try:
            await self._work()
        except (Exception, asyncio.CancelledError) as error:
            await say_farewell(self._api, error)
            raise

    async def _work(self) -> None:
        identity, run = await self.enrol()
        self._events.checking(identity, run)
        runner = await self.prepare(identity.device, run)
        sleep = self._surroundings.sleep
        after, epoch, repeats, before = -1, "", 0, ""
        while (task := await self._api.work(after=after, epoch=epoch)).kind != "finished":
            await self._renewal.heed(task)
            if task.kind == "wait":
                self._events.waiting(task)
                await sleep(pause_s(task))
                continue
            told, task = task, runner.next_task(task)
            # The server asks for the same again only if it lost what it was sent: go on, but ever more slowly.
            key = f"{task.kind} {task.spec.round} {task.spec.version}"
            repeats, before = (repeats + 1 if key == before else 0), key
            await sleep(min(2.0**repeats - 1, MAX_DELAY_S))
            await runner.carry_out(task)
            if task.kind == "train":
                after, epoch = task.spec.round, told.epoch
        self._events.finished(task)

    async def enrol(self) -> tuple[Identity, RunInfo]:
        """The device that this board is, and its run; enrols only if the board is no device yet."""
        identity, folder, settings = self._checked.identity, self._checked.folder, self._settings
        self._events.calling(self._api.transport.server)
        if identity.credential:
            if destination(identity, settings) != identity:
                before, identity = identity, await follow(self._api, folder, identity, settings, self._outage)
                self._events.followed(before, identity)
            self._api.transport.keeper = self._renewal
            try:
                return identity, await self._api.run()
            except UnknownCredentialError:
                if not settings.token:
                    raise
                self._api.transport.credential = ""
        identity, run = await enrol(self._api, folder, identity, settings, self._outage)
        self._api.transport.credential, self._api.transport.keeper = identity.credential, self._renewal
        await self._trust.begin(run)
        self._events.enrolled(identity, run)
        return identity, run

    async def prepare(self, board_id: str, run: RunInfo) -> TaskRunner:
        """Check the base, measure the texts and show a first plan: what cannot work is known before the first task."""
        checked, settings = self._checked, self._settings
        base_folder = await find_base(
            settings.model, run, self._api, checked.folder.path / "base", self._events.console
        )
        board = BoardSetup(
            board_id=board_id,
            base_folder=base_folder,
            data=settings.data_spec,
            n_held_out=checked.data.n_held_out,
            threads=settings.threads,
            eval_examples=settings.eval_examples,
            folder=checked.folder,
            cache_bytes=checked.cache_bytes,
        )
        run = await run_with_lengths(
            run, board, api=self._api, worker=self._worker, events=self._events, sleep=self._surroundings.sleep
        )
        watch = Watch(self._api, self._surroundings.watch_every_s)
        plans = TaskPlans(
            board, planner=self._planner(board, run), worker=self._worker, events=self._events, watch=watch
        )
        await plans.show_first(run)
        return TaskRunner(board, api=self._api, worker=self._worker, plans=plans, events=self._events, watch=watch)

    def _planner(self, board: BoardSetup, run: RunInfo) -> Planner:
        """The planner for this board and base, with what earlier probes have measured."""
        checked = self._checked
        n_evaluated = min(board.eval_examples, board.n_held_out)
        cache = CacheBudget(checked.cache_bytes, checked.data.n_train, n_evaluated)
        key = calibration_key(run.base.digest, client_version(), matmul_key(board.threads) or "no torch")
        base, calibration = read_config(board.base_folder, run), read_calibration(checked.folder, key)
        return Planner(
            Situation(checked.board, run, base, cache, checked.limits, calibration),
            keep=lambda calibration: write_calibration(checked.folder, calibration),
            measure=self._surroundings.measure,
        )


@asynccontextmanager
async def open_client(
    settings: JoinSettings,
    checked: Preflight,
    console: Console,
    worker: WorkerProcess,
    surroundings: Surroundings = REAL,
) -> AsyncIterator[Client]:
    """A client with all that it needs, closed again in the opposite order."""
    identity = checked.identity
    status = StatusFile(checked.folder)
    goal = destination(identity, settings)
    credential = identity.credential if goal == identity else ""  # a new address has to show first whose it is
    status.update(server=goal.server, device=identity.device, pid=os.getpid(), phase="connecting", at_once=True)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(worker.close)
        transport = Transport(
            goal.server, credential=credential, fingerprint=goal.fingerprint, session=secrets.token_hex(16)
        )
        await stack.enter_async_context(transport)
        outage = Outage(console, on_change=lambda online: status.update(at_once=True, online=online))
        api = Api(transport, surroundings.new_backoff, on_failure=outage.begin, on_success=outage.end)
        reports = await stack.enter_async_context(Reports(api))
        events = Events(console, status, reports, transport.traffic)
        yield Client(settings, checked, worker, surroundings, api=api, events=events, outage=outage)
