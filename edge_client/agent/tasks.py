"""A board's work: profile, train or evaluate as the server says. Every step can be cut short and repeated.

What is on disk decides where to go on: a result that was written is only sent, a saved training is resumed, a part of a
download is completed. Nothing else is remembered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from braid_common import metrics
from edge_client.agent.board_setup import BoardSetup
from edge_client.agent.events import Events
from edge_client.agent.faults.data_watch import DataWatch
from edge_client.agent.manners.pauses import Away
from edge_client.agent.manners.speed_watch import SpeedWatch
from edge_client.agent.personal.own_steps import OwnSteps
from edge_client.agent.relevance import is_wanted
from edge_client.agent.reports import round_costs
from edge_client.agent.task_plans import TaskPlans
from edge_client.agent.watch import TaskOver, Watch
from edge_client.errors import ClientError, ExitCode, NoPlanError, RevokedError, disk_errors
from edge_client.jobs.messages import Job, Plan, Progress
from edge_client.network.api import Api
from edge_client.network.errors import ConflictError, GoneError, RequestError
from edge_client.state.held_adapter import HeldAdapter
from edge_client.state.task_files import TaskFiles, begun_task
from edge_client.worker.process import WorkerError, WorkerLost, WorkerProcess
from wire.messages import Receipt, Task
from wire.rounds import BoardEvent, BoardState, advance
from wire.routes import PROFILING
from wire.run import RunInfo

MAX_WORKER_LOSSES = 5
"""Times that one task may lose its worker. More of them are no accident but the board's doing: four leaner plans later
it trains in half of the memory above the libraries that it began with."""


class TaskRunner:
    """Carries out one task after another, in the worker process.

    Args:
        board: what stays the same over all tasks.
        api: the server.
        worker: where jobs run.
        plans: make the plan of each task.
        events: where everything is told.
        watch: cuts short what nobody waits for any more.
        speed: tells what slows the board down.
    """

    def __init__(
        self,
        board: BoardSetup,
        *,
        api: Api,
        worker: WorkerProcess,
        plans: TaskPlans,
        events: Events,
        watch: Watch,
        speed: SpeedWatch,
    ) -> None:
        self._board, self._api, self._worker = board, api, worker
        self._plans, self._events, self._watch, self._speed = plans, events, watch, speed
        self._held = HeldAdapter(board.folder.held)
        self._own = OwnSteps(board, worker=worker, plans=plans, events=events, watch=watch, held=self._held)
        self._data = DataWatch(board, events)
        self._state = BoardState.IDLE

    def next_task(self, told: Task) -> Task:
        """The task to carry out now: one that was begun before a restart and still counts, else the one the server
        told."""
        begun = begun_task(self._board.folder.work)
        return begun if begun is not None and is_wanted(begun, told) else told

    async def carry_out(self, task: Task) -> None:
        """Do `task` to its end, whichever it is.

        Raises RevokedError, UnknownCredentialError, NoPlanError, DiskError, Away where the board may not train for
        longer, and what the worker fails with; it can be called again then, and goes on from what is on disk. What the
        server refuses or no longer wants is told and dropped.
        """
        kinds = {"profile": self._profile, "train": self._train, "evaluate": self._evaluate}
        files = TaskFiles(self._board.folder.work, task)
        files.sweep_others()
        try:
            await self._with_fresh_workers(kinds[task.kind], task, files)
        except (TaskOver, GoneError) as error:
            self._advance(BoardEvent.ROUND_GONE)
            self._events.console.notice(f"{_name(task)} is over without this board: {error}")
        except (ConflictError, RequestError) as error:
            self._advance(BoardEvent.INTERRUPTED)
            self._events.console.notice(f"{_name(task)} is dropped: {error.message}", error.hint)
        except RevokedError:
            self._advance(BoardEvent.DEVICE_REVOKED)
            raise
        except (ClientError, Away):
            self._advance(BoardEvent.INTERRUPTED)
            raise
        self._keep_adapter(task, files)
        files.remove()

    async def _with_fresh_workers(
        self, carry_out: Callable[[Task, TaskFiles], Awaitable[None]], task: Task, files: TaskFiles
    ) -> None:
        """Repeat a task whose worker died, from where it was; with a leaner plan, where memory was the reason."""
        losses, has_fetched_again = 0, False
        while True:
            try:
                return await carry_out(task, files)
            except (WorkerLost, WorkerError) as error:
                losses += 1
                is_unread = self._held.give_up(files.adapter)  # a patch that could not be used: the whole is next
                if not has_fetched_again and not is_unread and _speaks_of_adapter(error, files):
                    is_unread = has_fetched_again = True
                    files.drop_adapter()
                if error.ran_short and losses == MAX_WORKER_LOSSES:
                    raise NoPlanError(error.message, error.hint) from error
                may_go_on = error.ran_short or is_unread or (isinstance(error, WorkerLost) and not error.is_certain)
                if losses == MAX_WORKER_LOSSES or not may_go_on:
                    raise
                self._advance(BoardEvent.INTERRUPTED)
                self._events.console.notice(f"{error.message}; it is started again", error.hint)
                plan = files.read_plan()
                if error.ran_short and plan is not None:
                    self._plans.ran_short(plan)

    # --- the three kinds -------------------------------------------------------------------------------------------

    async def _profile(self, task: Task, files: TaskFiles) -> None:
        self._advance(BoardEvent.TOLD_TO_PROFILE)
        self._events.phase("profile", task)
        values: Mapping[str, float] = files.read_values()
        if not files.result.exists():
            run = await self._run()
            plan = await self._plans.plan(run, task, files)
            values = await self._work(task, self._board.profile_job(run, task, plan, files), files)
        self._advance(BoardEvent.RESULT_WRITTEN)
        self._events.phase("upload", task)
        await self._send(task, self._api.upload(PROFILING, files.result), values)

    async def _train(self, task: Task, files: TaskFiles) -> None:
        self._advance(BoardEvent.TOLD_TO_TRAIN)
        job = None
        if not files.result.exists():
            job = self._board.train_job(*await self._fetch(task, files))
        self._advance(BoardEvent.TRAINING_BEGUN)
        values: Mapping[str, float] = files.read_values()
        if job is not None:
            self._events.phase("train", task)
            values = await self._work(task, job, files)
            self._events.lost(values)
        self._advance(BoardEvent.RESULT_WRITTEN)
        self._events.phase("upload", task)
        if "held_out_loss" in values:  # first: the round that the update closes may weigh boards by it
            n_examples = min(self._board.eval_examples, self._data.n_held_out)
            scores = {"loss": values["held_out_loss"], metrics.N_EXAMPLES: n_examples}
            if "personal_loss" in values:
                scores[metrics.metric("personal", "loss")] = values["personal_loss"]
            await self._events.evaluation(task, scores | round_costs(values))
        await self._send(task, self._api.upload(task.spec.round, files.result), values)
        if job is not None:
            await self._own.train(job.run, task, files)

    async def _evaluate(self, task: Task, files: TaskFiles) -> None:
        self._advance(BoardEvent.TOLD_TO_EVALUATE)
        job = self._board.evaluate_job(*await self._fetch(task, files))
        self._advance(BoardEvent.EVALUATION_BEGUN)
        await self._own.train(job.run, task, files)  # first: they are scored, and then the run may be over
        self._events.phase("evaluate", task)
        values = await self._work(task, job, files)
        self._events.lost(values)
        await self._events.evaluation(task, values)
        self._advance(BoardEvent.REPORTED)

    # --- steps -----------------------------------------------------------------------------------------------------

    async def _fetch(self, task: Task, files: TaskFiles) -> tuple[RunInfo, Task, Plan, TaskFiles, str]:
        """Plan with the run's newest values, and fetch the version cut to the plan's ranks; what a job is made of."""
        self._events.phase("fetch", task)
        run = await self._run()
        plan = await self._plans.plan(run, task, files)
        held = self._held.of_run(task.run_id)
        if held is None:
            self._held.give_up(files.adapter)
        if not files.adapter.exists():
            await self._api.adapter(run, task.spec.version, _adapter_ranks(task, plan), files.adapter, held)
            if not self._held.needed_for(files.adapter):
                self._held.forget()  # the whole is here
        return run, task, plan, files, self._held.needed_for(files.adapter)

    async def _run(self) -> RunInfo:
        """The run as it stands. Raises TaskOver where it has lost its lengths: whoever changed run.toml waits for the
        server to choose others, and so do its tasks."""
        run = await self._api.run()
        if not run.settings.has_lengths:
            raise TaskOver("the server has yet to choose how long texts may be")
        return self._board.run_here(run)

    def _keep_adapter(self, task: Task, files: TaskFiles) -> None:
        """Keep the adapter of a task that is over, to fetch the next one as a patch to it."""
        plan = files.read_plan()
        if plan is not None:
            spec = task.spec
            ranks = _adapter_ranks(task, plan)
            self._held.keep(files.adapter, task.run_id, spec.version, ranks, spec.version_digest)

    async def _work(self, task: Task, job: Job, files: TaskFiles) -> Mapping[str, float]:
        """The worker's numbers, kept on disk for a client that is killed before they are told."""

        def progressed(progress: Progress) -> None:
            self._events.progress(task, progress)
            self._speed.look()

        done = await self._watch.while_wanted(task, self._worker.run_job(job, progressed))
        values = self._data.seen(done.values)
        files.write_values(values)
        return values

    async def _send(self, task: Task, sending: Awaitable[Receipt], values: Mapping[str, float]) -> None:
        """Await the server's verdict on a result, and tell it."""
        with disk_errors(self._board.folder.work):  # somebody has removed the result while it was sent
            receipt = await sending
        self._advance(BoardEvent.ANSWERED)
        self._events.answered(task, receipt, values)

    def _advance(self, event: BoardEvent) -> None:
        self._state = advance(self._state, event)


def _adapter_ranks(task: Task, plan: Plan) -> Sequence[int]:
    """The ranks that a task's adapter is cut to: none for an evaluation, which reads the frozen factors alone."""
    return plan.ranks if task.kind == "train" else [0] * len(plan.ranks)


def _speaks_of_adapter(error: WorkerLost | WorkerError, files: TaskFiles) -> bool:
    """Whether a worker may have failed because of the adapter's file, which the network can mend: it is no adapter of
    this run (any more), or gone."""
    if error.exit_code is ExitCode.CONFIG:
        return not files.adapter.exists()
    return error.exit_code is ExitCode.REFUSED and files.adapter.exists()


def _name(task: Task) -> str:
    return "profiling" if task.kind == "profile" else f"round {task.spec.round}"
