"""The jobs of a simulated fleet's boards, as the client's network side would make them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

import builtin_base
from aggregator.merge.state import AdapterState, strand_values
from aggregator.merge.traits import Traits
from benchmarks.simulation.setting import Setting, board_ranks
from benchmarks.simulation.solo import weights
from edge_client.jobs.messages import EvaluateJob, Job, Plan, ProfileJob, TrainJob
from edge_client.state.pruned_ranks import limited, read_pruned
from wire.checks import basis_rank
from wire.limits import MAX_EXAMPLES, PROTOCOL_VERSION
from wire.manifest import manifest_digest
from wire.messages import Base, RunInfo, Task, TrainSettings

SKETCH_BATCHES = 8
"""The server's default, as far as a round has so many."""

THREADS = 1
"""With one thread, the process's CPU seconds are what the work would take on an idle machine."""

MEMORY_BYTES = 4 << 30
"""More than the builtin base needs."""

EVALUATED_AT_ONCE = 20
"""Examples of one forward pass."""

CACHE_LIMIT_BYTES = 2 << 30

Kind = Literal["profile", "train", "evaluate"]

RUN_ID = "fleet"
WEIGHTS = weights("decoder")
_MANIFEST = manifest_digest(WEIGHTS)


class Jobs:
    """Makes them. Args: setting; facts of its merge rule; folder for all files that jobs read and write."""

    def __init__(self, setting: Setting, facts: Traits, folder: Path) -> None:
        self.ranks = board_ranks(setting)
        self._setting = setting
        self._facts = facts
        self._folder = folder

    def make(self, kind: Kind, task: Task, board: int, state: AdapterState) -> Job:
        """A job on the version `state`, or on the bare base where that is version 0."""
        setting, trains = self._setting, kind == "train"
        run = self._run_info(task, state)
        rank, pruned_path = self.ranks[board] if trains else 0, self._path(f"pruned-{board}")
        pruned = read_pruned(Path(pruned_path), run, board_name(board), task.spec.round) or {}
        common: dict[str, Any] = {
            "base_folder": str(builtin_base.folder()),
            "data": board_name(board),
            "run": run,
            "spec": task.spec,
            "plan": _plan(
                limited([min(rank, basis_rank(weight, run.max_rank)) for weight in WEIGHTS], WEIGHTS, pruned),
                EVALUATED_AT_ONCE if kind == "evaluate" else setting.batch,
            ),
            "cache_path": self._path(f"cache-{board}" if kind != "evaluate" else "cache"),
            "cache_limit_bytes": CACHE_LIMIT_BYTES,
            "threads": THREADS,
        }
        adapter_path = self._path(f"adapter-{board}") if task.spec.version else ""
        if kind == "evaluate":
            return EvaluateJob(adapter_path=adapter_path, max_eval_examples=MAX_EXAMPLES, **common)
        common["board_id"] = board_name(board)
        if kind == "profile":
            return ProfileJob(result_path=self._path(_profile_name(run, board)), **common)
        return TrainJob(
            adapter_path=adapter_path,
            held_path=self._path(f"held-{board}") if setting.differences else "",
            residual_path=self._path(f"residual-{board}") if setting.feedback else "",
            pruned_path=pruned_path,
            result_path=self._path(f"result-{board}"),
            max_eval_examples=0,
            **common,
        )

    def train(self, task: Task, board: int, state: AdapterState) -> TrainJob:
        """A training job on the version `state`."""
        job = self.make("train", task, board, state)
        assert isinstance(job, TrainJob)
        return job

    def profile(self, task: Task, board: int, state: AdapterState) -> ProfileJob:
        """A profile of the bare base."""
        job = self.make("profile", task, board, state)
        assert isinstance(job, ProfileJob)
        return job

    def evaluate(self, task: Task, board: int, state: AdapterState) -> EvaluateJob:
        """An evaluation of the version `state`, or of the bare base where that is version 0."""
        job = self.make("evaluate", task, board, state)
        assert isinstance(job, EvaluateJob)
        return job

    def forget_rounds(self) -> None:
        """What the boards of another fleet keep from round to round."""
        for kind in ("residual", "pruned"):
            for path in self._folder.glob(f"{kind}-*"):
                path.unlink()

    def _path(self, name: str) -> str:
        return str(self._folder / name)

    def _run_info(self, task: Task, state: AdapterState) -> RunInfo:
        setting = self._setting
        return RunInfo(
            protocol=PROTOCOL_VERSION,
            run_id=RUN_ID,
            state="training",
            base=Base(model="builtin", digest="0" * 64),
            weights=WEIGHTS,
            manifest=_MANIFEST,
            settings=self._train_settings(),
            max_rank=setting.max_rank,
            server_rank=setting.server_rank,
            rounds=setting.rounds,
            round=task.spec.round,
            version=state.version,
            values=strand_values(state),
        )

    def _train_settings(self) -> TrainSettings:
        setting, facts = self._setting, self._facts
        return TrainSettings(
            scope="decoder",
            learning_rate=setting.learning_rate,
            batch=setting.batch,
            micro_batch=setting.batch,
            local_steps=setting.local_steps,
            max_source_tokens=setting.max_source_tokens,
            max_target_tokens=setting.max_target_tokens,
            sketch_batches=min(SKETCH_BATCHES, setting.local_steps),
            upload=setting.upload,
            trains_a=facts.trains_a,
            own_basis=facts.own_basis,
            pruning=facts.prunes,
            seed=setting.seed,
        )


def board_name(board: int) -> str:
    return f"board-{board}"


def _profile_name(run: RunInfo, board: int) -> str:
    """One file for all fleets whose profiles are the same."""
    seen = msgspec.structs.replace(
        run.settings, learning_rate=1.0, local_steps=1, upload="bf16", trains_a=False, own_basis=False, pruning=False
    )
    return f"profile-{board}-{digest(seen, run.max_rank)}"


def digest(*parts: object) -> str:
    """A short name of what has a repr of its own."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _plan(ranks: tuple[int, ...], micro_batch: int) -> Plan:
    return Plan(
        format="bf16",
        compute="bf16",
        micro_batch=micro_batch,
        ranks=ranks,
        predicted_peak_bytes=MEMORY_BYTES,
        budget_bytes=MEMORY_BYTES,
        cache="bf16",
    )
