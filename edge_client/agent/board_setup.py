"""The setup of a joined board, and the jobs that it makes of the server's tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_client.agent.personal.own_settings import with_own
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import EvaluateJob, MeasureJob, PersonalJob, Plan, ProbeJob, ProfileJob, TrainJob
from edge_client.jobs.reward_spec import Reward
from edge_client.state.folder import StateFolder
from edge_client.state.task_files import TaskFiles
from wire.messages import Task
from wire.run import Personal, RunInfo


@dataclass(frozen=True, slots=True)
class BoardSetup:
    """All that stays the same over the tasks of a client.

    Attributes:
        board_id: this board's name at the server.
        base_folder: where the checked base is.
        data: names the data set.
        n_held_out: examples kept apart to evaluate on.
        threads: processors for the worker, 0 for those that are free.
        eval_examples: held-out examples that are looked at, at most.
        folder: the state folder, which is locked.
        cache_bytes: disk for the encoder's output.
        personal: the local strands that this board asks for itself, in place of the run's; None where it asks for none.
        rewards: what its owner wants of answers; empty where it learns from right ones alone.
    """

    board_id: str
    base_folder: Path
    data: DataSpec
    n_held_out: int
    threads: int
    eval_examples: int
    folder: StateFolder
    cache_bytes: int
    personal: Personal | None = None
    rewards: tuple[Reward, ...] = ()

    def run_here(self, run: RunInfo) -> RunInfo:
        """The run as this board trains it: with its own local strands, where it asks for some."""
        return with_own(run, self.personal)

    def measure_job(self, run: RunInfo) -> MeasureJob:
        """A job that measures how long the board's texts are."""
        return MeasureJob(base_folder=str(self.base_folder), data=self.data, form=run.settings.text_form)

    def probe_job(self, run: RunInfo, task: Task, plan: Plan) -> ProbeJob:
        """A job that tries a plan."""
        return ProbeJob(**self._common(run, task, plan))

    def profile_job(self, run: RunInfo, task: Task, plan: Plan, files: TaskFiles) -> ProfileJob:
        """A job that profiles the bare base."""
        return ProfileJob(
            board_id=self.board_id,
            result_path=str(files.result),
            **self._cache(plan),
            **self._common(run, task, plan),
        )

    def train_job(self, run: RunInfo, task: Task, plan: Plan, files: TaskFiles, held_path: str) -> TrainJob:
        """A job that trains a round. `held_path`: the adapter that a patch in `files.adapter` changes, "" for none."""
        return TrainJob(
            board_id=self.board_id,
            adapter_path=str(files.adapter),
            held_path=held_path,
            result_path=str(files.result),
            training_state_path=str(files.training_state),
            residual_path=str(self.folder.residual),
            pruned_path=str(self.folder.pruned),
            personal_path=self._personal_path(run),
            max_eval_examples=self.eval_examples,
            rewards=self.rewards if run.settings.rewards_in(task.spec.round) else (),
            **self._cache(plan),
            **self._common(run, task, plan),
        )

    def personal_job(self, run: RunInfo, task: Task, plan: Plan, files: TaskFiles, held_path: str) -> PersonalJob:
        """A job that trains the board's own strands over the adapter of a task that is done. `held_path` as for
        training."""
        return PersonalJob(
            board_id=self.board_id,
            adapter_path=str(files.adapter),
            held_path=held_path,
            personal_path=self._personal_path(run),
            ranks=plan.ranks if task.kind == "train" else (0,) * len(plan.ranks),
            max_eval_examples=self.eval_examples,
            **self._cache(plan),
            **self._common(run, task, plan),
        )

    def evaluate_job(self, run: RunInfo, task: Task, plan: Plan, files: TaskFiles, held_path: str) -> EvaluateJob:
        """A job that scores a version, the bare base and what this board has learnt for itself, their texts compared
        too. `held_path` as for training."""
        return EvaluateJob(
            adapter_path=str(files.adapter),
            held_path=held_path,
            personal_path=self._personal_path(run),
            rouge=True,
            beside_base=True,
            max_eval_examples=self.eval_examples,
            **self._cache(plan),
            **self._common(run, task, plan),
        )

    def _common(self, run: RunInfo, task: Task, plan: Plan) -> dict[str, Any]:
        return {
            "base_folder": str(self.base_folder),
            "data": self.data,
            "run": run,
            "spec": task.spec,
            "plan": plan,
            "threads": self.threads,
        }

    def _personal_path(self, run: RunInfo) -> str:
        """The file of this board's local strands in the run; "" where it trains none."""
        if not any(run.local_ranks):
            return ""
        return str(self.folder.personal.prepare(run, self.base_folder))

    def _cache(self, plan: Plan) -> dict[str, Any]:
        if plan.mode.cache == "none":
            return {}
        return {"cache_path": str(self.folder.cache), "cache_limit_bytes": self.cache_bytes}
