"""Steps of a board's own strands, taken once a task is done: the server waits for nothing of them."""

from __future__ import annotations

from edge_client.agent.board_setup import BoardSetup
from edge_client.agent.events import Events
from edge_client.agent.task_plans import TaskPlans
from edge_client.agent.watch import Watch
from edge_client.jobs.messages import Progress
from edge_client.state.held_adapter import HeldAdapter
from edge_client.state.task_files import TaskFiles
from edge_client.worker.process import WorkerError, WorkerLost, WorkerProcess
from wire.messages import Task
from wire.run import Personal, RunInfo


class OwnSteps:
    """Trains the board's own strands over the adapter of a task that is done, where they have steps of their own.

    Args:
        board: what stays the same over all tasks.
        worker: where they are trained.
        plans: learn where memory runs short.
        events: where they are told.
        watch: holds them up while the board may not train.
        held: the adapter that a patch changes.
    """

    def __init__(
        self,
        board: BoardSetup,
        *,
        worker: WorkerProcess,
        plans: TaskPlans,
        events: Events,
        watch: Watch,
        held: HeldAdapter,
    ) -> None:
        self._board, self._worker, self._plans = board, worker, plans
        self._events, self._watch, self._held = events, watch, held

    async def train(self, run: RunInfo, task: Task, files: TaskFiles) -> None:
        """Take the steps that are due after `task`. What goes wrong is told, and costs these steps alone: the strands
        of before stay. Raises Away where the board may not train for longer."""
        plan = files.read_plan()
        if plan is None or not _is_due(run, task) or not files.adapter.exists():
            return
        job = self._board.personal_job(run, task, plan, files, self._held.needed_for(files.adapter))
        self._events.phase("personal", task)

        def progressed(progress: Progress) -> None:
            self._events.progress(task, progress)

        try:
            done = await self._watch.to_its_end(self._worker.run_job(job, progressed))
        except (WorkerLost, WorkerError) as error:
            self._events.console.notice(f"local strands: {error.message}; those of before are kept", error.hint)
            if error.ran_short:
                self._plans.ran_short(plan)
            return
        self._events.own_strands(task, done.values)


def _is_due(run: RunInfo, task: Task) -> bool:
    """Whether local strands are trained after this task: after each round, or where the fleet's adapter is fine-tuned,
    once it is done."""
    personal = run.settings.personal
    if not run.own_steps or not isinstance(personal, Personal):
        return False
    return task.kind == ("evaluate" if personal.method == "finetune" else "train")
