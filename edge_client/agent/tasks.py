"""What a board does when it is told to profile, train or evaluate. Every step can be cut short and repeated.

What is on disk decides where to go on: a result that was written is only sent, a checkpoint is gone on from, a part of
a download is completed. Nothing else is remembered.

Memory that runs short costs no finished work. A way of training that is new to the board is probed first, when nothing
is at stake; a worker that is killed all the same is started again in a leaner way, at the optimiser step that it saved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edge_client.agent.events import Journal
from edge_client.agent.relevance import is_wanted
from edge_client.errors import NoPlanError, RevokedError
from edge_client.jobs.messages import Job, Plan
from edge_client.network.api import Api
from edge_client.network.errors import ConflictError, GoneError, RequestError
from edge_client.plan.planner import Planner
from edge_client.state.folder import disk_errors
from edge_client.state.held_adapter import HeldAdapter
from edge_client.state.pruned_ranks import read_pruned
from edge_client.state.task_files import TaskFiles, begun_task
from edge_client.worker.process import WorkerError, WorkerLost, WorkerProcess
from wire.messages import Receipt, RunInfo, Task
from wire.rounds import BoardEvent, BoardState, advance

T = TypeVar("T")

WATCH_EVERY_S = 15.0
"""While the worker works, how often to ask whether the round is still open: at most this much work is wasted."""

MAX_WORKER_LOSSES = 5
"""Times that one task may lose its worker. After that the board, not chance, is the cause: four leaner plans later it
trains in half of the memory above the libraries that it began with."""

MAX_PROBES = 6
"""Of one plan's making. Each shows a way that does not fit, or is killed and lowers the memory to plan with."""


class TaskOver(Exception):
    """The server has gone on without this board's part: drop the work and ask again."""


@dataclass(frozen=True, slots=True)
class BoardSetup:
    """What stays the same over all tasks of a client.

    Attributes:
        device: this board's name at the server.
        base_folder: where the checked base is.
        data: the data set, as given with --data.
        n_held_out: examples kept apart to evaluate on.
        threads: processors for the worker, 0 for torch's choice.
        eval_examples: held-out examples that are looked at, at most.
        work: folder for files of tasks.
        held: folder for the adapter that the next one is fetched as the difference to.
        residual: file for what quantised uploads lacked, which outlives the tasks.
        pruned: file for the ranks of weights that were pruned, which does so too.
        cache: folder for the encoder's output.
        cache_bytes: what that folder may take.
    """

    device: str
    base_folder: Path
    data: str
    n_held_out: int
    threads: int
    eval_examples: int
    work: Path
    held: Path
    residual: Path
    pruned: Path
    cache: Path
    cache_bytes: int


class BoardWork:
    """Carries out one task after another."""

    def __init__(
        self,
        board: BoardSetup,
        *,
        api: Api,
        worker: WorkerProcess,
        planner: Planner,
        journal: Journal,
        watch_every_s: float = WATCH_EVERY_S,
    ) -> None:
        self._board, self._api, self._worker, self._planner = board, api, worker, planner
        self._journal, self._watch_every_s = journal, watch_every_s
        self._held = HeldAdapter(board.held)
        self._state = BoardState.IDLE

    def to_do(self, told: Task) -> Task:
        """The task that the server told, or one that was begun before a restart and still counts: it goes on there."""
        begun = begun_task(self._board.work)
        return begun if begun is not None and is_wanted(begun, told) else told

    async def carry_out(self, task: Task) -> None:
        """Do `task` to its end, whichever it is.

        Raises RevokedError, NoPlanError, and what the worker fails with. What the server refuses or no longer wants is
        told and dropped.
        """
        kinds = {"profile": self._profile, "train": self._train, "evaluate": self._evaluate}
        files = TaskFiles(self._board.work, task)
        files.sweep_others()
        try:
            await self._with_fresh_workers(kinds[task.kind], task, files)
        except (TaskOver, GoneError) as error:
            self._advance(BoardEvent.ROUND_GONE)
            self._journal.console.notice(f"{_name(task)} is over without this board: {error}")
        except (ConflictError, RequestError) as error:
            self._advance(BoardEvent.INTERRUPTED)
            self._journal.console.notice(f"{_name(task)} is dropped: {error.message}", error.hint)
        except RevokedError:
            self._advance(BoardEvent.DEVICE_REVOKED)
            raise
        self._keep_adapter(task, files)
        files.remove()

    async def _with_fresh_workers(
        self, carry_out: Callable[[Task, TaskFiles], Awaitable[None]], task: Task, files: TaskFiles
    ) -> None:
        """Repeat a task whose worker died, from where it was; with a leaner plan, where memory was the reason."""
        losses = 0
        while True:
            try:
                return await carry_out(task, files)
            except (WorkerLost, WorkerError) as error:
                losses += 1
                is_unread = self._held.give_up(files.adapter)  # a difference that could not be used: the whole is next
                if error.ran_short and losses == MAX_WORKER_LOSSES:
                    raise NoPlanError(error.message, error.hint) from error
                if losses == MAX_WORKER_LOSSES or not (error.ran_short or is_unread or isinstance(error, WorkerLost)):
                    raise
                self._advance(BoardEvent.INTERRUPTED)
                self._journal.console.notice(f"{error.message}; it is started again", error.hint)
                plan = files.read_plan()
                if error.ran_short and plan is not None:
                    self._planner.ran_short(plan)

    def pruned(self, run: RunInfo, round_id: int) -> Mapping[str, int]:
        """The ranks that earlier rounds have pruned weights to; none, which is told, where they cannot be read."""
        ranks = read_pruned(self._board.pruned, run, self._board.device, round_id)
        if ranks is None:
            self._journal.console.notice(
                "to which ranks earlier rounds have pruned cannot be read: weights begin at the plan's ranks again"
            )
            with disk_errors(self._board.pruned):
                self._board.pruned.unlink(missing_ok=True)
        return ranks or {}

    # --- the three kinds -------------------------------------------------------------------------------------------

    async def _profile(self, task: Task, files: TaskFiles) -> None:
        self._advance(BoardEvent.TOLD_TO_PROFILE)
        self._journal.phase("profile", task)
        values: Mapping[str, float] = files.read_values()
        if not files.result.exists():
            run = await self._api.run()
            plan = await self._plan(run, task, files)
            job = self._job(run, task, plan, files)
            values = await self._work(task, job, files)
        self._advance(BoardEvent.RESULT_WRITTEN)
        self._journal.phase("upload", task)
        await self._answered(task, self._api.profile(files.result), values)

    async def _train(self, task: Task, files: TaskFiles) -> None:
        self._advance(BoardEvent.TOLD_TO_TRAIN)
        job = None if files.result.exists() else await self._fetched(task, files)
        self._advance(BoardEvent.TRAINING_BEGUN)
        values: Mapping[str, float] = files.read_values()
        if job is not None:
            self._journal.phase("train", task)
            values = await self._work(task, job, files)
            if "residual_lost" in values:
                self._journal.console.notice(
                    "what quantisation dropped of the last update cannot be read, or is of another run: it is left out"
                )
        self._advance(BoardEvent.RESULT_WRITTEN)
        self._journal.phase("upload", task)
        await self._answered(task, self._api.upload(task.spec.round, files.result), values)
        if "held_out_loss" in values:
            n_examples = min(self._board.eval_examples, self._board.n_held_out)
            await self._journal.evaluation(task, {"loss": values["held_out_loss"], "n_examples": n_examples})

    async def _evaluate(self, task: Task, files: TaskFiles) -> None:
        self._advance(BoardEvent.TOLD_TO_EVALUATE)
        job = await self._fetched(task, files)
        self._advance(BoardEvent.EVALUATION_BEGUN)
        self._journal.phase("evaluate", task)
        await self._journal.evaluation(task, await self._work(task, job, files))
        self._advance(BoardEvent.REPORTED)

    async def _fetched(self, task: Task, files: TaskFiles) -> Job:
        """Plan with the run's newest values, and fetch the version cut to the plan's ranks."""
        self._journal.phase("fetch", task)
        run = await self._api.run()
        plan = await self._plan(run, task, files)
        held = self._held.of_run(task.run_id)
        if held is None:
            self._held.give_up(files.adapter)
        if not files.adapter.exists():
            await self._api.adapter(run, task.spec.version, _cut_ranks(task, plan), files.adapter, held)
            if not self._held.needed_for(files.adapter):
                self._held.forget()  # the whole is here
        return self._job(run, task, plan, files)

    def _keep_adapter(self, task: Task, files: TaskFiles) -> None:
        """What was fetched for a task that is over, to fetch the next as the difference to it."""
        plan = files.read_plan()
        if plan is not None:
            self._held.keep(files.adapter, task.run_id, task.spec.version, _cut_ranks(task, plan))

    # --- steps -----------------------------------------------------------------------------------------------------

    def _advance(self, event: BoardEvent) -> None:
        self._state = advance(self._state, event)

    async def _plan(self, run: RunInfo, task: Task, files: TaskFiles) -> Plan:
        """The plan that this task goes by, if it still fits; else a leaner one that keeps what was done; else a new
        one."""
        begun = files.read_plan()
        if begun is not None and len(begun.ranks) != len(run.weights):
            begun = None
        if begun is None:
            files.remove()
        plan = begun
        if plan is None or not self._planner.fits(plan):
            plan = await self._probed_plan(run, task, files, begun)
            files.write_plan(plan)
        await self._journal.plan(task.spec.round, plan, self._planner.why(run, plan))
        if begun is not None and plan != begun:
            await self._journal.backed_off(task, plan)
        return plan

    async def _probed_plan(self, run: RunInfo, task: Task, files: TaskFiles, begun: Plan | None) -> Plan:
        """A plan of a kind that was measured on this board, as far as MAX_PROBES go. Raises NoPlanError."""
        pruned = self.pruned(run, task.spec.round)
        for n_probes in range(MAX_PROBES + 1):
            plan = self._planner.choose(run, pruned) if begun is None else self._planner.leaner(run, begun, pruned)
            if self._planner.is_measured(plan) or n_probes == MAX_PROBES:
                break
            await self._probe(run, task, plan, files)
        return plan

    async def _probe(self, run: RunInfo, task: Task, plan: Plan, files: TaskFiles) -> None:
        """Try a plan on dummy text and correct the planner by what that took."""
        self._journal.phase("probe", task)
        await self._worker.close()  # a fresh one's peak is the probe's
        job = msgspec.structs.replace(
            self._job(run, task, plan, files),
            kind="probe",
            adapter_path="",
            held_path="",
            result_path="",
            checkpoint_path="",
        )
        try:
            done = await self._while_wanted(task, self._worker.run_job(job, lambda progress: None))
        except (WorkerLost, WorkerError) as error:
            if not error.ran_short:
                raise
            self._journal.console.notice(f"{error.message}, while a plan was tried; a smaller one is made", error.hint)
            self._planner.ran_short(plan)
            return
        self._planner.correct(plan, int(done.values["peak_bytes"]))
        self._journal.probed(task, plan, done.values)

    async def _work(self, task: Task, job: Job, files: TaskFiles) -> Mapping[str, float]:
        """The worker's numbers, kept on disk for a client that is killed before they are told."""
        done = await self._while_wanted(
            task, self._worker.run_job(job, lambda progress: self._journal.progress(task, progress))
        )
        files.write_values(done.values)
        return done.values

    async def _while_wanted(self, task: Task, work: Coroutine[Any, Any, T]) -> T:
        """`work`, cut short with TaskOver once the server no longer waits for it."""
        working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._until_over(task))
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                watching.result()  # raises TaskOver, or RevokedError
            return await working
        finally:
            for one in (working, watching):
                one.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _until_over(self, task: Task) -> None:
        while True:
            await asyncio.sleep(self._watch_every_s)
            now = await self._api.work(after=-1, wait_s=0)
            if not is_wanted(task, now):
                raise TaskOver(f"the server is at round {now.spec.round}, version {now.spec.version}")

    async def _answered(self, task: Task, sending: Awaitable[Receipt], values: Mapping[str, float]) -> None:
        receipt = await sending
        self._advance(BoardEvent.ANSWERED)
        self._journal.answered(task, receipt, values)

    def _job(self, run: RunInfo, task: Task, plan: Plan, files: TaskFiles) -> Job:
        assert task.kind in ("profile", "train", "evaluate")
        return Job(
            kind=task.kind,
            base_folder=str(self._board.base_folder),
            data=self._board.data,
            device=self._board.device,
            run=run,
            spec=task.spec,
            plan=plan,
            adapter_path="" if task.kind == "profile" else str(files.adapter),
            held_path=self._held.needed_for(files.adapter),
            result_path="" if task.kind == "evaluate" else str(files.result),
            checkpoint_path=str(files.checkpoint) if task.kind == "train" else "",
            residual_path=str(self._board.residual) if task.kind == "train" else "",
            pruned_path=str(self._board.pruned) if task.kind == "train" else "",
            cache_path=str(self._board.cache) if plan.cache != "none" else "",
            cache_limit_bytes=self._board.cache_bytes if plan.cache != "none" else 0,
            rouge=task.kind == "evaluate",
            max_eval_examples=self._board.eval_examples,
            threads=self._board.threads,
        )


def _cut_ranks(task: Task, plan: Plan) -> Sequence[int]:
    """What the adapter of a task is cut to; the context alone is evaluated."""
    return plan.ranks if task.kind == "train" else [0] * len(plan.ranks)


def _name(task: Task) -> str:
    return "profiling" if task.kind == "profile" else f"round {task.spec.round}"
