"""Runs, tasks, plans and jobs as the server and a board's network side would make them.

All benchmarks build these messages here, so that a change of one is a change of this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import builtin_base
from aggregator.merge.state import AdapterState, strand_values
from aggregator.merge.traits import Traits
from aggregator.run.round_spec import sketch_is_due
from benchmarks.simulation.setting import Recipe
from braid_common.seeds import derive_seed
from edge_client.jobs.messages import Job, Plan
from edge_client.plan.peak_memory import Breakdown, predict_peak
from edge_client.plan.training_mode import Way
from edge_client.state.pruned_ranks import limited, read_pruned
from wire.limits import MAX_EXAMPLES, PROTOCOL_VERSION
from wire.manifest import manifest_digest
from wire.messages import Adapter, AdapterPart, Base, Importance, RunInfo, Task, Trains, TrainSettings, Weight

SKETCH_BATCHES = 8
"""The server's default, as far as a round has so many."""

THREADS = 1
"""Threads of a job. With one, the process's CPU seconds are what the work would take on an idle machine."""

MEMORY_BYTES = 4 << 30
"""A board's budget: more than the builtin base needs."""

EVALUATED_AT_ONCE = 20
"""Examples of one forward pass."""

CACHE_LIMIT_BYTES = 2 << 30

RUN_ID = "fleet"

ChooseRanks = Callable[[RunInfo], tuple[int, ...]]
"""The ranks that a board trains, in manifest order, by the run as it stands."""


# --- messages ---------------------------------------------------------------------------------------------------------


def run_info(
    weights: Sequence[Weight],
    settings: TrainSettings,
    *,
    max_rank: int,
    server_rank: int,
    state: AdapterState | None = None,
    round_id: int = 1,
) -> RunInfo:
    """A run that no server serves. `state`: what is merged so far; without one it is a version 1 of no values."""
    return RunInfo(
        protocol=PROTOCOL_VERSION,
        run_id=RUN_ID,
        state="training",
        base=Base(model="simulated", digest="0" * 64),
        weights=tuple(weights),
        manifest=manifest_digest(weights),
        settings=settings,
        max_rank=max_rank,
        server_rank=server_rank,
        rounds=max(1, round_id),
        round=round_id,
        version=1 if state is None else state.version,
        values=() if state is None else strand_values(state),
    )


def train_task(run: RunInfo, *, seed: int, sketch: bool, trains: Trains) -> Task:
    """The task of the run's open round."""
    return Task(
        kind="train",
        run_id=run.run_id,
        round=run.round,
        version=run.version,
        seed=seed,
        sketch=sketch,
        trains=trains,
    )


def planned(way: Way, ranks: Sequence[int], peak_bytes: int, budget_bytes: int | None = None) -> Plan:
    """A board's plan; its budget is what the plan is expected to take unless given."""
    return Plan(
        format=way.format,
        compute=way.compute,
        micro_batch=way.micro_batch,
        ranks=tuple(ranks),
        predicted_peak_bytes=peak_bytes,
        budget_bytes=peak_bytes if budget_bytes is None else budget_bytes,
        checkpointing=way.checkpointing,
        cache=way.cache,
        frozen_encoder=way.frozen_encoder,
    )


def predicted(config: dict[str, Any], run: RunInfo, way: Way, ranks: Sequence[int]) -> Breakdown:
    """The planner's prediction for a round, of a base with this config.json."""
    return predict_peak(
        config,
        run,
        way.format,
        way.compute,
        way.micro_batch,
        ranks,
        checkpointing=way.checkpointing,
        cache=way.cache,
        frozen_encoder=way.frozen_encoder,
    )


def adapter_message(run: RunInfo, parts: Sequence[AdapterPart]) -> Adapter:
    """The adapter that a board of this run downloads before a round."""
    return Adapter(
        protocol=PROTOCOL_VERSION, run_id=run.run_id, version=run.version, manifest=run.manifest, parts=tuple(parts)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFiles:
    """Files and limits of a board that runs one job; it writes into `folder` alone.

    Attributes:
        data: what --data would say.
        threads: of the job; 0 takes the processors that are free.
        n_evaluated: held-out examples that the adapter is evaluated on as received.
        saves_place: the job writes checkpoints, and what quantised uploads lacked.
    """

    base_folder: Path
    folder: Path
    data: str
    threads: int
    cache_limit_bytes: int
    n_evaluated: int
    saves_place: bool


def lone_job(files: JobFiles, run: RunInfo, task: Task, plan: Plan, *, profiles: bool = False) -> Job:
    """A training job of the adapter in folder/adapter; `profiles`: a profile instead, after its encoding pass."""
    return Job(
        kind="profile" if profiles else "train",
        base_folder=str(files.base_folder),
        data=files.data,
        device="benchmark",
        run=run,
        task=task,
        plan=plan,
        adapter_path=str(files.folder / "adapter"),
        result_path=str(files.folder / "result"),
        checkpoint_path=str(files.folder / "checkpoint") if files.saves_place else "",
        residual_path=str(files.folder / "residual") if files.saves_place else "",
        cache_path=str(files.folder / "cache"),
        cache_limit_bytes=files.cache_limit_bytes,
        max_eval_examples=files.n_evaluated,
        threads=files.threads,
    )


# --- a federation's boards --------------------------------------------------------------------------------------------


class Jobs:
    """Makes the jobs of a federation's boards. A version 0 of the state is the bare base.

    Args:
        recipe: how the federation trains.
        traits: those of its merge rule.
        weights: what may be trained.
        folder: for all files that jobs read and write.
    """

    def __init__(self, recipe: Recipe, traits: Traits, weights: Sequence[Weight], folder: Path) -> None:
        self._recipe, self._traits = recipe, traits
        self._weights = tuple(weights)
        self._folder = folder

    def profile(self, state: AdapterState, board: int, importance: Importance = "sketch") -> Job:
        """A look at the board's text through the bare base. Equal profiles of other recipes have the same file."""
        run = self._run(state, 0, importance=importance)
        task = Task(kind="profile", run_id=RUN_ID, seed=self._recipe.seed)
        job = self._job(run, task, board_name(board), self._plan(run, (0,) * len(run.weights)))
        return msgspec.structs.replace(
            job, result_path=self._path(_profile_name(run, board)), cache_path=self._cache_path(board)
        )

    def train(
        self, state: AdapterState, board: int, round_id: int, choose: ChooseRanks, *, n_steps: int | None = None
    ) -> Job:
        """A board's part of a round, of `n_steps` optimiser steps if that is not the recipe's number."""
        recipe, name = self._recipe, board_name(board)
        run = self._run(state, round_id, n_steps=n_steps)
        task = train_task(
            run,
            seed=derive_seed(recipe.seed, "round", round_id),
            sketch=sketch_is_due(self._traits, round_id, rounds=recipe.rounds, every=recipe.sketch_every),
            trains=self._traits.trains(state.version),
        )
        pruned_path = self._path(f"pruned-{board}")
        pruned = read_pruned(Path(pruned_path), run, name, round_id) or {}
        return msgspec.structs.replace(
            self._job(run, task, name, self._plan(run, limited(choose(run), run.weights, pruned))),
            adapter_path=self._path(f"adapter-{board}"),
            held_path=self._path(f"held-{board}") if recipe.differences else "",
            residual_path=self._path(f"residual-{board}") if recipe.feedback else "",
            pruned_path=pruned_path,
            result_path=self._path(f"result-{board}"),
            cache_path=self._cache_path(board),
        )

    def evaluate(self, state: AdapterState, data: str, *, rouge: bool, cached: bool) -> Job:
        """An evaluation of the global adapter on a session's `data`; `cached`: encoder outputs are kept for later."""
        run = self._run(state, 0)
        task = Task(kind="evaluate", run_id=RUN_ID, version=state.version)
        job = self._job(run, task, data, self._plan(run, (0,) * len(run.weights), EVALUATED_AT_ONCE, cached=cached))
        return msgspec.structs.replace(
            job,
            adapter_path=self._path("adapter") if state.version else "",
            cache_path=self._path("cache"),
            rouge=rouge,
            max_eval_examples=MAX_EXAMPLES,
        )

    def forget_rounds(self) -> None:
        """Drop what the boards of another federation keep from round to round."""
        for kind in ("residual", "pruned"):
            for path in self._folder.glob(f"{kind}-*"):
                path.unlink()

    def _job(self, run: RunInfo, task: Task, data: str, plan: Plan) -> Job:
        assert task.kind in ("profile", "train", "evaluate")
        return Job(
            kind=task.kind,
            base_folder=str(builtin_base.folder()),
            data=data,
            device=data,  # a session finds a board's text by the board's name
            run=run,
            task=task,
            plan=plan,
            cache_limit_bytes=CACHE_LIMIT_BYTES,
            max_eval_examples=0,
            threads=THREADS,
        )

    def _plan(self, run: RunInfo, ranks: Sequence[int], micro_batch: int | None = None, *, cached: bool = True) -> Plan:
        has_cache = cached and run.settings.scope == "decoder"
        way = Way("bf16", "bf16", micro_batch or self._recipe.batch, cache="bf16" if has_cache else "none")
        return planned(way, ranks, MEMORY_BYTES)

    def _run(
        self, state: AdapterState, round_id: int, *, n_steps: int | None = None, importance: Importance = "sketch"
    ) -> RunInfo:
        recipe, traits = self._recipe, self._traits
        settings = TrainSettings(
            scope=recipe.scope,
            learning_rate=recipe.learning_rate,
            batch=recipe.batch,
            micro_batch=recipe.batch,
            local_steps=n_steps or recipe.local_steps,
            max_source_tokens=recipe.max_source_tokens,
            max_target_tokens=recipe.max_target_tokens,
            sketch_batches=min(SKETCH_BATCHES, recipe.local_steps),
            upload=recipe.upload,
            importance=importance,
            trains_a=traits.trains_a,
            own_basis=traits.own_basis,
            pruning=traits.prunes,
            seed=recipe.seed,
        )
        limits = {"max_rank": recipe.max_rank, "server_rank": recipe.server_rank}
        return run_info(self._weights, settings, **limits, state=state, round_id=round_id)

    def _cache_path(self, board: int) -> str:
        return self._path(f"cache-{board}")

    def _path(self, name: str) -> str:
        return str(self._folder / name)


def board_name(board: int) -> str:
    """The name of a simulated board, under which a session has its text."""
    return f"board-{board}"


def digest(*parts: object) -> str:
    """A short name of things that have a repr of their own."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _profile_name(run: RunInfo, board: int) -> str:
    """One file for all federations whose profiles are the same."""
    seen = msgspec.structs.replace(
        run.settings, learning_rate=1.0, local_steps=1, upload="bf16", trains_a=False, own_basis=False, pruning=False
    )
    return f"profile-{board}-{digest(seen, run.max_rank)}"
