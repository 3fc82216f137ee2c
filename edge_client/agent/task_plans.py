"""The plan of each task: one that still fits, else a new one, tried out before any work is at stake.

Memory that runs short costs no finished work. A way of training that is new to the board is probed first; a worker that
is killed all the same is started again with a leaner plan, at the optimiser step that it saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edge_client.agent.board_setup import BoardSetup
from edge_client.agent.events import Events
from edge_client.agent.personal.own_settings import unshared_ranks
from edge_client.agent.watch import Watch
from edge_client.errors import disk_errors
from edge_client.jobs.messages import Plan
from edge_client.plan.planner import Planner
from edge_client.state.pruned_ranks import read_pruned
from edge_client.state.task_files import TaskFiles
from edge_client.worker.process import WorkerError, WorkerLost, WorkerProcess
from wire.messages import Task
from wire.run import RunInfo

MAX_PROBES = 6
"""Probes for one plan. Each one shows a way that does not fit, or is killed and lowers the memory to plan with."""


class TaskPlans:
    """Makes the plans of a board's tasks with the planner, and tries them in the worker."""

    def __init__(
        self, board: BoardSetup, *, planner: Planner, worker: WorkerProcess, events: Events, watch: Watch
    ) -> None:
        self._board, self._planner = board, planner
        self._worker, self._events, self._watch = worker, events, watch

    async def show_first(self, run: RunInfo) -> None:
        """Make and tell a plan before the first task, so that what cannot work is known. Raises NoPlanError."""
        plan = self._planner.choose(run, self._pruned(run, run.round))
        await self._events.plan(run.round, plan, partial(self._planner.why, run, plan))

    async def plan(self, run: RunInfo, task: Task, files: TaskFiles) -> Plan:
        """The plan that this task goes by, if it still fits; else a leaner one that keeps what was done; else a new
        one. Raises NoPlanError."""
        kept = files.read_plan()
        if kept is not None and len(kept.ranks) != len(run.weights):
            kept = None
        if kept is None:
            files.remove()
        plan = kept
        if plan is None or not self._planner.fits(plan, run):
            plan = await self._probed(run, task, kept)
            files.write_plan(plan)
        await self._events.plan(task.spec.round, plan, partial(self._planner.why, run, plan))
        if kept is not None and (plan.mode, plan.ranks) != (kept.mode, kept.ranks):  # what is kept loaded is no news
            await self._events.backed_off(task, plan)
        return plan

    def ran_short(self, plan: Plan) -> None:
        """Memory ran out at `plan`: plan with less from now on. Call while no worker runs."""
        self._planner.ran_short(plan)

    def _pruned(self, run: RunInfo, round_id: int) -> Mapping[str, int]:
        """The ranks that earlier rounds have pruned weights to, none, which is told, where they cannot be read; and 0
        for weights whose strands this board keeps for itself."""
        path = self._board.folder.pruned
        ranks = read_pruned(path, run, self._board.board_id, round_id)
        if ranks is None:
            self._events.console.notice(
                "to which ranks earlier rounds have pruned cannot be read: weights begin at the plan's ranks again"
            )
            with disk_errors(path):
                path.unlink(missing_ok=True)
        return {**(ranks or {}), **unshared_ranks(run)}

    async def _probed(self, run: RunInfo, task: Task, kept: Plan | None) -> Plan:
        """A plan of a kind that was measured on this board, as far as MAX_PROBES go; with `kept`, a leaner one than
        that. Raises NoPlanError."""
        pruned = self._pruned(run, task.spec.round)
        for n_probes in range(MAX_PROBES + 1):
            plan = self._planner.choose(run, pruned) if kept is None else self._planner.leaner(run, kept, pruned)
            if self._planner.is_measured(plan) or n_probes == MAX_PROBES:
                break
            await self._probe(run, task, plan)
        return plan

    async def _probe(self, run: RunInfo, task: Task, plan: Plan) -> None:
        """Try a plan on dummy text and correct the planner by what that took."""
        self._events.phase("probe", task)
        await self._worker.close()  # a fresh one's peak is the probe's
        job = self._board.probe_job(run, task, plan)
        try:
            done = await self._watch.while_wanted(task, self._worker.run_job(job, lambda progress: None))
        except (WorkerLost, WorkerError) as error:
            if not error.ran_short:
                raise
            self._events.console.notice(f"{error.message}, while a plan was tried; a smaller one is made", error.hint)
            self._planner.ran_short(plan)
            return
        self._planner.correct(plan, int(done.values["peak_bytes"]), int(done.values.get("imports_bytes", 0)))
        self._events.probed(task, plan, done.values)
