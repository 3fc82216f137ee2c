"""Runs, plans and jobs as the server and a board's network side would make them.

All benchmarks build these messages here, so that a change of one is a change of this file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from aggregator.merge.state import AdapterState, strand_values
from aggregator.merge.traits import Traits
from aggregator.run.round_spec import sketch_is_due
from benchmarks.simulation.setting import Recipe
from braid_common.seeds import derive_seed
from edge_client.agent.personal.own_settings import unshared_ranks
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import EvaluateJob, PersonalJob, Plan, ProfileJob, TrainingMode, TrainJob
from edge_client.jobs.reward_spec import Reward
from edge_client.plan.pruning import limited
from edge_client.state.pruned_ranks import read_pruned
from wire.default_run import run_info
from wire.limits import MAX_EXAMPLES, PROTOCOL_VERSION
from wire.messages import Adapter, AdapterPart, RoundSpec
from wire.run import Importance, RunInfo, TrainSettings, Weight

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
BOARD_ID = "benchmark"
"""The name of a board that runs jobs without a federation."""

ChooseRanks = Callable[[RunInfo], tuple[int, ...]]
"""The ranks that a board trains, in manifest order, by the run as it stands."""


# --- jobs of one board ------------------------------------------------------------------------------------------------


def plan_of(mode: TrainingMode, ranks: Sequence[int], peak_bytes: int, budget_bytes: int | None = None) -> Plan:
    """A board's plan; its budget is what the plan is expected to take unless given."""
    return Plan(
        mode=mode,
        ranks=tuple(ranks),
        predicted_bytes=peak_bytes,
        expected_peak_bytes=peak_bytes,
        budget_bytes=peak_bytes if budget_bytes is None else budget_bytes,
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
        cache_name: the folder within `folder` that keeps encoder outputs.
        n_evaluated: held-out examples that the adapter is evaluated on as received.
        saves_state: the job saves its training, and what quantised uploads lacked.
    """

    base_folder: Path
    folder: Path
    data: str
    threads: int
    cache_limit_bytes: int
    cache_name: str = "cache"
    n_evaluated: int = 0
    saves_state: bool = False


def train_job(files: JobFiles, run: RunInfo, spec: RoundSpec, plan: Plan) -> TrainJob:
    """A training job of the adapter in folder/adapter."""
    return TrainJob(
        **_text_fields(files, run, spec, plan),
        board_id=BOARD_ID,
        adapter_path=str(files.folder / "adapter"),
        result_path=str(files.folder / "result"),
        training_state_path=str(files.folder / "training") if files.saves_state else "",
        residual_path=str(files.folder / "residual") if files.saves_state else "",
        max_eval_examples=files.n_evaluated,
    )


def profile_job(files: JobFiles, run: RunInfo, spec: RoundSpec, plan: Plan) -> ProfileJob:
    """A profile of the board's text, after the encoding pass where the plan has a cache."""
    return ProfileJob(
        **_text_fields(files, run, spec, plan), board_id=BOARD_ID, result_path=str(files.folder / "result")
    )


def _text_fields(files: JobFiles, run: RunInfo, spec: RoundSpec, plan: Plan) -> dict[str, Any]:
    """The fields that every job has which reads text."""
    return {
        "base_folder": str(files.base_folder),
        "data": DataSpec(files.data),
        "run": run,
        "spec": spec,
        "plan": plan,
        "threads": files.threads,
        "cache_path": str(files.folder / files.cache_name),
        "cache_limit_bytes": files.cache_limit_bytes,
    }


# --- a federation's boards --------------------------------------------------------------------------------------------


class Jobs:
    """Makes the jobs of a federation's boards. A version 0 of the state is the bare base.

    Args:
        recipe: how the federation trains.
        traits: those of its merge rule.
        weights: what may be trained.
        folder: for all files that jobs read and write.
        base_folder: the base.
    """

    def __init__(
        self, recipe: Recipe, traits: Traits, weights: Sequence[Weight], folder: Path, base_folder: Path
    ) -> None:
        self._recipe, self._traits = recipe, traits
        self._weights = tuple(weights)
        self._folder, self._base_folder = folder, base_folder

    def profile(self, state: AdapterState, board: int, importance: Importance = "sketch") -> ProfileJob:
        """A look at the board's text through the bare base. Equal profiles of other recipes have the same file."""
        run = self._run(state, 0, importance=importance)
        spec = RoundSpec(round=0, version=0, seed=self._recipe.seed, sketch=True)
        name = board_name(board)
        return ProfileJob(
            **self._fields(run, spec, name, self._plan(run, (0,) * len(run.weights)), f"cache-{board}"),
            board_id=name,
            result_path=self._path(_profile_name(run, board)),
        )

    def train(
        self,
        state: AdapterState,
        board: int,
        round_id: int,
        choose: ChooseRanks,
        *,
        n_steps: int | None = None,
        rewards: tuple[Reward, ...] = (),
    ) -> TrainJob:
        """A board's part of a round, of `n_steps` optimiser steps if that is not the recipe's number; `rewards`: what
        the board judges by."""
        recipe, name = self._recipe, board_name(board)
        run = self._run(state, round_id, n_steps=n_steps)
        spec = RoundSpec(
            round=round_id,
            version=state.version,
            seed=derive_seed(recipe.seed, "round", round_id),
            sketch=sketch_is_due(self._traits, round_id, rounds=recipe.rounds, every=recipe.sketch_every),
            trains=self._traits.trains(state.version),
        )
        pruned_path = self._path(f"pruned-{board}")
        pruned = read_pruned(Path(pruned_path), run, name, round_id) or {}
        plan = self._plan(run, limited(choose(run), run.weights, {**pruned, **unshared_ranks(run)}))
        return TrainJob(
            **self._fields(run, spec, name, plan, f"cache-{board}"),
            board_id=name,
            adapter_path=self._path(f"adapter-{board}"),
            rewards=rewards,
            held_path=self._path(f"held-{board}") if recipe.differences else "",
            residual_path=self._path(f"residual-{board}") if recipe.feedback else "",
            pruned_path=pruned_path,
            personal_path=self.own_path(board),
            result_path=self._path(f"result-{board}"),
            max_eval_examples=0,
        )

    def own_steps(self, state: AdapterState, board: int, round_id: int) -> PersonalJob:
        """The steps that a board's own strands have to themselves, over the whole adapter."""
        run, name = self._run(state, round_id), board_name(board)
        spec = RoundSpec(round=round_id, version=state.version, seed=derive_seed(self._recipe.seed, "round", round_id))
        nothing = (0,) * len(run.weights)
        return PersonalJob(
            **self._fields(run, spec, name, self._plan(run, nothing), f"cache-{board}"),
            board_id=name,
            adapter_path=self._path("adapter"),
            personal_path=self.own_path(board),
            ranks=nothing,
            max_eval_examples=0,
        )

    def own_path(self, board: int) -> str:
        """The file of a board's own strands; "" where the recipe gives it none."""
        return self._path(f"own-{board}") if self._recipe.personal is not None else ""

    def evaluate(self, state: AdapterState, data: str, *, rouge: bool, cached: bool, own_path: str = "") -> EvaluateJob:
        """An evaluation of the global adapter on a session's `data`, with a board's own strands where a path is given;
        `cached`: encoder outputs are kept for later."""
        run = self._run(state, 0)
        spec = RoundSpec(round=0, version=state.version)
        plan = self._plan(run, (0,) * len(run.weights), EVALUATED_AT_ONCE, cached=cached)
        return EvaluateJob(
            **self._fields(run, spec, data, plan, "cache"),
            adapter_path=self._path("adapter") if state.version else "",
            personal_path=own_path,
            rouge=rouge,
            max_eval_examples=MAX_EXAMPLES,
        )

    def forget_rounds(self) -> None:
        """Drop what the boards of another federation keep from round to round."""
        for kind in ("residual", "pruned", "own"):
            for path in self._folder.glob(f"{kind}-*"):
                path.unlink()

    def _fields(self, run: RunInfo, spec: RoundSpec, data: str, plan: Plan, cache_name: str) -> dict[str, Any]:
        """The fields that all three kinds of jobs have; a session finds a board's text by the board's name."""
        files = JobFiles(
            base_folder=self._base_folder,
            folder=self._folder,
            data=data,
            threads=THREADS,
            cache_limit_bytes=CACHE_LIMIT_BYTES,
            cache_name=cache_name,
        )
        return _text_fields(files, run, spec, plan)

    def _plan(self, run: RunInfo, ranks: Sequence[int], micro_batch: int | None = None, *, cached: bool = True) -> Plan:
        has_cache = cached and run.settings.scope == "decoder"
        mode = TrainingMode(
            format="bf16",
            compute="bf16",
            micro_batch=micro_batch or self._recipe.batch,
            cache="bf16" if has_cache else "none",
        )
        return plan_of(mode, ranks, MEMORY_BYTES)

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
            reward=recipe.reward or UNSET,
            max_source_tokens=recipe.max_source_tokens,
            max_target_tokens=recipe.max_target_tokens,
            truncate_source=recipe.truncate_source,
            sketch_batches=min(SKETCH_BATCHES, recipe.local_steps),
            upload=recipe.upload,
            importance=importance,
            trains_a=traits.trains_a,
            own_basis=traits.own_basis,
            pruning=traits.prunes,
            seed=recipe.seed,
            personal=recipe.personal or UNSET,
            keep=recipe.keep or UNSET,
            nested=recipe.nested or UNSET,
            cooldown=recipe.cooldown or UNSET,
        )
        return run_info(
            self._weights,
            settings,
            max_rank=recipe.max_rank,
            server_rank=recipe.server_rank,
            run_id=RUN_ID,
            rounds=max(recipe.rounds, round_id),
            round=round_id,
            version=state.version,
            values=strand_values(state),
        )

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
        run.settings,
        reward=UNSET,
        learning_rate=1.0,
        local_steps=1,
        upload="bf16",
        trains_a=False,
        own_basis=False,
        pruning=False,
        personal=UNSET,
        keep=UNSET,
        nested=UNSET,
    )
    return f"profile-{board}-{digest(seen, run.max_rank)}"
