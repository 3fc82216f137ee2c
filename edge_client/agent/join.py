"""`edge-client join`: check the board, enrol, and do what the server says until the run is over.

The order is: everything that can be wrong on this side first, without a request (`agent/preflight.py`); then the
enrolment; then one long poll after another. A client that waits for work has loaded neither torch nor numpy.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_client.agent.board_setup import BoardSetup
from edge_client.agent.console import Console
from edge_client.agent.downloads.base import find_base, read_config
from edge_client.agent.enrolment import StrangerError, client_version, destination, enrol, follow
from edge_client.agent.events import Events
from edge_client.agent.farewell import say_farewell, say_farewell_from
from edge_client.agent.faults.obstacle import Obstacle
from edge_client.agent.manners.leave_to_train import LOOK_EVERY_S
from edge_client.agent.manners.look import Look
from edge_client.agent.manners.pauses import Away, Pauses
from edge_client.agent.manners.speed_watch import SpeedWatch
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
from edge_client.errors import ClientError, DiskError, RefusedError
from edge_client.host.board import Board, probe_board
from edge_client.host.matmul_speed import matmul_key
from edge_client.jobs.reward_spec import require_rewards
from edge_client.network.api import Api
from edge_client.network.errors import NotKnownError, Unavailable, UnknownCredentialError
from edge_client.network.retry import MAX_DELAY_S, Backoff
from edge_client.network.transport import Transport
from edge_client.plan.cache_budget import CacheBudget
from edge_client.plan.calibration import Calibration, calibration_key
from edge_client.plan.planner import Planner
from edge_client.plan.situation import Situation
from edge_client.state.calibration_file import read_calibration, write_calibration
from edge_client.state.folder import Identity
from edge_client.state.status import StatusFile
from edge_client.worker.process import WorkerProcess
from wire.messages import Task
from wire.run import RunInfo


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The time and the board that a client lives with.

    Attributes:
        new_backoff: makes the pauses of one call; takes the keyword arguments of Backoff.
        sleep: waits so many seconds.
        watch_every_s: seconds between two looks whether a task's result is still wanted.
        measure: looks at the board's memory anew, when it ran short.
        now_unix_s: seconds since 1970 as the board's clock has it, for people; only hours of training go by it.
        look_every_s: seconds between two looks whether the board may train on, where its operator has set rules.
        root: where /sys is.
    """

    new_backoff: Callable[..., Backoff] = Backoff
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    watch_every_s: float = WATCH_EVERY_S
    measure: Callable[[], Board] = probe_board
    now_unix_s: Callable[[], float] = time.time
    look_every_s: float = LOOK_EVERY_S
    root: Path = Path("/")


LOST_BOARD_HINT = (
    "do nothing if the server is coming back as it was; else create a token there (`aggregator token create DIR`) and "
    "start this board again with it, by --token or as BRAID_TOKEN in its edge-client.env"
)
"""What to do for a board that its server does not know."""

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
        asyncio.run(_until_stopped(settings, checked, console, worker or WorkerProcess(nice=settings.nice)))
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
        self._obstacle = Obstacle(checked.folder, events)
        self._strangeness = api.new_backoff()
        self._pauses = self._new_pauses() if checked.rules else None
        api.check_run = self._trust.check

    async def run_to_end(self) -> None:
        """Do what the server says until it says that the run is finished; it is told of any other end."""
        self._events.calling(self._api.transport.server)
        try:
            await self._work()
        except (Exception, asyncio.CancelledError) as error:
            await say_farewell(self._api, error)
            raise

    async def _work(self) -> None:
        """Take part in the server's run; in another one, where the server was set up anew."""
        while True:
            is_known = False
            try:
                identity, run = await self.enrol()
                is_known = True
                return await self._take_part(identity, run)
            except UnknownCredentialError as error:
                if not self._identity().credential:
                    raise
                unknown = NotKnownError(error.message, error.hint)
                if not is_known:  # else the next try shows whether it is let in again
                    self._outage.begin(unknown)
                await self._strangeness.pause(unknown)

    async def _take_part(self, identity: Identity, run: RunInfo) -> None:
        """Work in one run to its end. Raises UnknownCredentialError where the server knows the board no more."""
        self._events.checking(identity, run)
        runner = await self.prepare(identity.device, run)
        sleep = self._surroundings.sleep
        after, epoch, repeats, before = -1, "", 0, ""
        while (task := await self._next_word(after, epoch)).kind != "finished":
            self._strangeness.progressed()
            await self._renewal.heed(task)
            if task.kind == "wait":
                self._events.waiting(task)
                await sleep(pause_s(task))
                continue
            told, task = task, runner.next_task(task)
            # The server asks for the same again only if it lost what it was sent: go on, but ever more slowly.
            key = f"{task.kind} {task.spec.round} {task.spec.version}"
            repeats, before = (repeats + 1 if key == before else 0), key
            await sleep(min(2.0 ** min(repeats, 30) - 1, MAX_DELAY_S))
            try:
                self._obstacle.try_out()
                await runner.carry_out(task)
            except Away:
                before = ""  # the server has lost nothing
                continue
            except ClientError as error:
                await self._obstacle.meet(error, task.spec.round)
                continue
            await self._obstacle.passed(task.spec.round)
            if task.kind == "train":
                after, epoch = task.spec.round, told.epoch
        self._events.finished(task)

    async def _next_word(self, after: int, epoch: str) -> Task:
        """The task that the server has for this board, asked for once it may train."""
        if self._pauses is not None:
            await self._pauses.until_allowed(self._surroundings.sleep)
        return await self._api.work(after=after, epoch=epoch)

    async def enrol(self) -> tuple[Identity, RunInfo]:
        """The device that this board is, and its run; enrols only if the board is no device of the server (yet)."""
        identity, folder, settings = self._identity(), self._checked.folder, self._settings
        if identity.credential and destination(identity, settings) != identity:
            identity = await self._follow(identity)
        if identity.credential:
            self._api.transport.keeper = self._renewal
            try:
                return identity, await self._api.run()
            except UnknownCredentialError as error:
                if not settings.token:
                    raise UnknownCredentialError(error.message, LOST_BOARD_HINT) from error
                identity, run = await self._enrol_again(identity, error)
        else:
            identity, run = await enrol(self._api, folder, identity, settings, self._outage)
        self._api.transport.credential, self._api.transport.keeper = identity.credential, self._renewal
        await self._trust.begin(run)
        self._events.enrolled(identity, run)
        return identity, run

    async def _follow(self, identity: Identity) -> Identity:
        """The identity at the address that the settings name; one that is no device yet where another server is there
        and a person vouches for it, by its certificate's fingerprint and a token. No credential is sent to it."""
        settings = self._settings
        try:
            followed = await follow(self._api, self._checked.folder, identity, settings, self._outage)
        except StrangerError:
            if not (settings.token and settings.fingerprint):
                raise
            goal = destination(identity, settings)
            self._events.console.notice(f"{goal.server} does not know this board, which enrols there with the token")
            return msgspec.structs.replace(goal, device="", credential="")
        self._events.followed(identity, followed)
        return followed

    async def _enrol_again(self, identity: Identity, unknown: UnknownCredentialError) -> tuple[Identity, RunInfo]:
        """Enrol at a server that knows this device no more, as one that was set up anew. Raises RevokedError, and else
        UnknownCredentialError: a server that does not take the token now may know the device again later."""
        transport = self._api.transport
        credential, transport.credential = transport.credential, ""
        try:
            return await enrol(self._api, self._checked.folder, identity, self._settings, self._outage)
        except (RefusedError, Unavailable) as error:
            transport.credential = credential
            message = f"{unknown.message}, and the token does not help: {error.message}"
            raise UnknownCredentialError(message, LOST_BOARD_HINT) from error

    def _identity(self) -> Identity:
        """The identity on disk, which a renewal changes."""
        return self._checked.folder.read_identity() or self._checked.identity

    async def prepare(self, board_id: str, run: RunInfo) -> TaskRunner:
        """Check the base, measure the texts and show a first plan: what cannot work is known before the first task."""
        checked, settings = self._checked, self._settings
        require_rewards(run, settings.rewards)
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
            personal=settings.personal,
            rewards=settings.rewards,
        )
        run = await run_with_lengths(
            run, board, api=self._api, worker=self._worker, events=self._events, sleep=self._surroundings.sleep
        )
        run, surroundings = board.run_here(run), self._surroundings
        watch = Watch(self._api, surroundings.watch_every_s, self._pauses)
        plans = TaskPlans(
            board, planner=self._planner(board, run), worker=self._worker, events=self._events, watch=watch
        )
        await plans.show_first(run)
        speed = SpeedWatch(self._events.slowed, surroundings.root)
        return TaskRunner(
            board, api=self._api, worker=self._worker, plans=plans, events=self._events, watch=watch, speed=speed
        )

    def _new_pauses(self) -> Pauses:
        """The pauses that this board's rules ask for."""
        surroundings, rules = self._surroundings, self._checked.rules
        look = Look(rules, surroundings.now_unix_s, surroundings.root)
        return Pauses(rules, look, worker=self._worker, listener=self._events, look_every_s=surroundings.look_every_s)

    def _planner(self, board: BoardSetup, run: RunInfo) -> Planner:
        """The planner for this board and base, with what earlier probes have measured."""
        checked = self._checked
        n_evaluated = min(board.eval_examples, board.n_held_out)
        cache = CacheBudget(checked.cache_bytes, checked.data.n_train, n_evaluated)
        key = calibration_key(run.base.digest, client_version(), matmul_key(board.threads) or "no torch")
        base, calibration = read_config(board.base_folder, run), read_calibration(checked.folder, key)

        def keep(calibration: Calibration) -> None:
            with suppress(DiskError):  # measured again after the next start
                write_calibration(checked.folder, calibration)

        return Planner(
            Situation(checked.board, run, base, cache, checked.limits, calibration, board.rewards),
            keep=keep,
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
    status = StatusFile(checked.folder, now_unix_s=surroundings.now_unix_s)
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
