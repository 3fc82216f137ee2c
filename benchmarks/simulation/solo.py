"""A federation of one board in one process: production's jobs on one side, production's merge on the other.

For measurements of what training achieves; nothing is replaced but the network, which is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import builtin_base
from aggregator.merge.contribution import contribution, profile_contribution
from aggregator.merge.rules import RULES
from aggregator.merge.state import AdapterState, initial_state, strand_values
from aggregator.merge.step import MergeSettings
from braid_common.base_files import read_t5_config
from braid_common.example import Example
from braid_common.seeds import derive_seed
from edge_client.data.readers import Data
from edge_client.engines.contract import Host
from edge_client.engines.lean.engine import LeanEngine
from edge_client.engines.lean.session import Session
from edge_client.jobs.messages import CacheDtype, EvaluateJob, Plan, ProfileJob, TrainJob
from edge_client.plan.strand_selection import allot, strand_order
from edge_client.worker.main import run_job
from wire.codec import decode, encode
from wire.limits import PROTOCOL_VERSION
from wire.manifest import manifest_digest, t5_weights
from wire.messages import (
    Adapter,
    Base,
    Importance,
    Profile,
    RoundSpec,
    RunInfo,
    Scope,
    Task,
    TrainSettings,
    Update,
    Weight,
)

MAX_RANK = 32
SERVER_RANK = 32
SKETCH_EVERY = 2
SKETCH_BATCHES = 8
"""The server's defaults, but for twice the strands per weight: decoder scope needs them to have parameters to choose
from where it is to train as many as all scope."""

THREADS = 1
"""With one thread, the process's CPU seconds are what the work would take on an idle machine."""

MEMORY_BYTES = 4 << 30
"""More than the builtin base needs: what training takes is another benchmark's question."""

CACHE_LIMIT_BYTES = 2 << 30

_RUN_ID = "solo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the builtin base is trained.

    `max_rank`: strands that each weight has. `n_parameters`: values that a round trains at most, Σ r_w·m_w, or
    Σ r_w·(m_w + n_w) where it trains A as well. `rule`: how the server merges, which says what is trained.
    """

    scope: Scope
    learning_rate: float
    max_rank: int
    n_parameters: int
    seed: int
    batch: int
    max_source_tokens: int
    max_target_tokens: int
    rule: str = "braid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the board's training jobs took; profiling, evaluation and the server's merging are left out.

    step_s is the CPU time of the steps, on `n_tokens` source and target tokens, and encode_s that of filling the prefix
    cache for them; job_s is the CPU time of the whole jobs, which also load the base and tokenise, and wall_s their
    wall time.
    """

    n_steps: int = 0
    n_tokens: float = 0.0
    step_s: float = 0.0
    encode_s: float = 0.0
    job_s: float = 0.0
    wall_s: float = 0.0

    @property
    def training_s(self) -> float:
        """CPU seconds of steps and encoding."""
        return self.step_s + self.encode_s


class TextSession(Session):
    """A session with text that is already in memory, whatever a job's `data` names. Its seconds are CPU seconds."""

    def __init__(self, *, train: Sequence[Example] = (), held_out: Sequence[Example] = ()) -> None:
        super().__init__(Host(clock=time.process_time))
        self._text = Data(list(train), list(held_out))

    def data(self, spec: str) -> Data:
        return self._text


class Solo:
    """One run. Args: recipe; train, the board's text; folder, an empty one, for its files and its prefix cache; choose:
    the strands of each weight that a round trains, by value within the recipe's `n_parameters` unless given."""

    def __init__(
        self,
        recipe: Recipe,
        train: Sequence[Example],
        folder: Path,
        choose: Callable[[RunInfo], tuple[int, ...]] | None = None,
    ) -> None:
        self._recipe = recipe
        self._rule = RULES[recipe.rule]
        self._choose = choose or partial(ranks_within, n_parameters=recipe.n_parameters)
        self._folder = folder
        self._session = TextSession(train=train)
        self._weights = weights(recipe.scope)
        self._state = initial_state(self._weights)
        self._round = 0
        self._ranks = (0,) * len(self._weights)
        self.spent = Spent()

    @property
    def state(self) -> AdapterState:
        """What the server holds now."""
        return self._state

    @property
    def n_trained(self) -> int:
        """Values that the last round trained."""
        return n_parameters(self._weights, self._ranks, trains_a=self._rule.TRAITS.trains_a)

    @property
    def encoder_share(self) -> float:
        """Part of them that is the encoder's."""
        ranks = [rank if weight.is_encoder else 0 for rank, weight in zip(self._ranks, self._weights, strict=True)]
        return n_parameters(self._weights, ranks, trains_a=self._rule.TRAITS.trains_a) / max(1, self.n_trained)

    @property
    def n_weights(self) -> int:
        """Weights that the last round trained."""
        return sum(rank > 0 for rank in self._ranks)

    @property
    def n_adapter(self) -> int:
        """Values of the merged adapter, both factors."""
        return sum(w.frozen_b.size + w.frozen_a.size for w in self._state.weights.values())

    def profile(self, importance: Importance = "sketch") -> Profile:
        """What the board says of its text and the bare base."""
        seed = derive_seed(self._recipe.seed, "profile")
        job = self._job(
            Task(kind="profile", run_id=_RUN_ID, spec=RoundSpec(round=0, version=0, seed=seed)),
            n_steps=1,
            importance=importance,
        )
        run_job(job, LeanEngine(self._session))
        return decode(Path(job.result_path).read_bytes(), Profile)

    def begin(self, profile: Profile | None = None) -> None:
        """The first basis, of `profile` or of a profiling pass."""
        total = self._rule.fold(None, profile_contribution(profile or self.profile()))
        self._state = self._rule.first_basis(self._state, total, max_rank=self._recipe.max_rank, seed=self._recipe.seed)

    def round(self, n_steps: int) -> None:
        """One round of `n_steps` optimiser steps, and the merge of its one update."""
        self._round += 1
        task = Task(
            kind="train",
            run_id=_RUN_ID,
            spec=RoundSpec(
                round=self._round,
                version=self._state.version,
                seed=derive_seed(self._recipe.seed, "round", self._round),
                sketch=self._rule.TRAITS.sketches and self._round % SKETCH_EVERY == 0,
                trains=self._rule.TRAITS.trains(self._state.version),
            ),
        )
        job = self._job(task, n_steps)
        self._ranks = job.plan.ranks
        self._write_adapter(job, self._ranks)
        self._train(job)
        update = decode(Path(job.result_path).read_bytes(), Update)
        total = self._rule.fold(None, contribution(update, self._rule, self._state, "bf16"))
        self._state = self._rule.merge(self._state, total, MergeSettings(SERVER_RANK, self._recipe.max_rank))

    def score(self, judge: TextSession, n_examples: int, *, rouge: bool) -> Mapping[str, float]:
        """What an evaluate job says of the merged adapter (before `begin`: the bare base) on the judge's text."""
        task = Task(kind="evaluate", run_id=_RUN_ID, spec=RoundSpec(round=0, version=self._state.version))
        job = self._job(task, n_steps=1, rouge=rouge, n_examples=n_examples)
        if job.adapter_path:
            self._write_adapter(job, [0] * len(self._weights))
        return run_job(job, LeanEngine(judge))

    def _write_adapter(self, job: Any, ranks: Sequence[int]) -> None:
        parts = self._rule.cut(self._state, ranks, "bf16")
        adapter = Adapter(
            protocol=PROTOCOL_VERSION,
            run_id=job.run.run_id,
            version=self._state.version,
            manifest=job.run.manifest,
            parts=parts,
        )
        Path(job.adapter_path).write_bytes(encode(adapter))

    # --- jobs ------------------------------------------------------------------------------------------------------

    def _train(self, job: Any) -> None:
        job_s, wall_s, before = time.process_time(), time.monotonic(), self.spent
        values = run_job(job, LeanEngine(self._session))
        self.spent = Spent(
            n_steps=before.n_steps + job.run.settings.local_steps,
            n_tokens=before.n_tokens + values["tokens_per_s"] * values["seconds"],
            step_s=before.step_s + values["seconds"],
            encode_s=before.encode_s + values["encode_s"],
            job_s=before.job_s + time.process_time() - job_s,
            wall_s=before.wall_s + time.monotonic() - wall_s,
        )

    def _job(
        self,
        task: Task,
        n_steps: int,
        *,
        rouge: bool = False,
        n_examples: int = 0,
        importance: Importance = "sketch",
    ) -> Any:
        run = self._run_info(n_steps, importance)
        cached = self._recipe.scope == "decoder" and task.kind != "evaluate"
        common: dict[str, Any] = {
            "base_folder": str(builtin_base.folder()),
            "data": task.kind,
            "run": run,
            "spec": task.spec,
            "plan": self._plan(run, "bf16" if cached else "none"),
            "cache_path": str(self._folder / f"cache-{task.kind}")
            if cached
            else "",  # training encodes all that it reads
            "cache_limit_bytes": CACHE_LIMIT_BYTES if cached else 0,
            "threads": THREADS,
        }
        adapter_path = str(self._folder / "adapter") if task.spec.version else ""
        if task.kind == "evaluate":
            return EvaluateJob(adapter_path=adapter_path, rouge=rouge, max_eval_examples=n_examples, **common)
        common |= {"board_id": "board", "result_path": str(self._folder / "result")}
        if task.kind == "profile":
            return ProfileJob(**common)
        return TrainJob(adapter_path=adapter_path, max_eval_examples=n_examples, **common)

    def _plan(self, run: RunInfo, cache: CacheDtype) -> Plan:
        return Plan(
            format="bf16",
            compute="bf16",
            micro_batch=self._recipe.batch,
            ranks=self._choose(run),
            predicted_peak_bytes=MEMORY_BYTES,
            budget_bytes=MEMORY_BYTES,
            cache=cache,
        )

    def _run_info(self, n_steps: int, importance: Importance) -> RunInfo:
        recipe = self._recipe
        return RunInfo(
            protocol=PROTOCOL_VERSION,
            run_id=_RUN_ID,
            state="training",
            base=Base(model="builtin", digest="0" * 64),
            weights=self._weights,
            manifest=manifest_digest(self._weights),
            settings=TrainSettings(
                scope=recipe.scope,
                learning_rate=recipe.learning_rate,
                batch=recipe.batch,
                micro_batch=recipe.batch,
                local_steps=n_steps,
                max_source_tokens=recipe.max_source_tokens,
                max_target_tokens=recipe.max_target_tokens,
                sketch_batches=SKETCH_BATCHES,
                importance=importance,
                trains_a=self._rule.TRAITS.trains_a,
                seed=recipe.seed,
            ),
            max_rank=recipe.max_rank,
            server_rank=SERVER_RANK,
            rounds=max(1, self._round),
            round=self._round,
            version=self._state.version,
            values=strand_values(self._state),
        )


def weights(scope: Scope) -> tuple[Weight, ...]:
    """The builtin base's weights of a scope."""
    return t5_weights(read_t5_config(builtin_base.folder()), scope)


def ranks_within(run: RunInfo, n_parameters: int) -> tuple[int, ...]:
    """Ranks of as many leading strands as train at most `n_parameters` values."""
    order, n_values, n_strands = strand_order(run), 0, 0
    for index in order:
        n_values += _values(run.weights[index], run.settings.trains_a)
        if n_values > n_parameters:
            break
        n_strands += 1
    return allot(order, len(run.weights), n_strands)


def n_parameters(manifest: Sequence[Weight], ranks: Sequence[int], *, trains_a: bool = False) -> int:
    """Values that are trained at these ranks, of B, and of A where it is trained."""
    return sum(rank * _values(weight, trains_a) for rank, weight in zip(ranks, manifest, strict=True))


def _values(weight: Weight, trains_a: bool) -> int:
    """Of one strand."""
    return weight.rows + weight.columns * trains_a
