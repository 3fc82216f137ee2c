"""What benchmarks.selection finds."""

from __future__ import annotations

from typing import Literal

import msgspec

from benchmarks.study.file import StudySoFar

Selection = Literal["sketch", "adalora", "magnitude_gradient", "random", "q,v"]
Part = Literal["validation", "test"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs of a study share. Lengths are in tokens. `qv_ranks` are the budgets: what every q and v of the
    model trains at that rank."""

    rounds: int
    local_steps: int
    batch: int
    max_source_tokens: int
    max_target_tokens: int
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    n_train: int
    n_validation: int
    n_test: int
    max_rank: int
    qv_ranks: tuple[int, ...]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Which training run."""

    set: str
    part: Part
    qv_rank: int
    selection: Selection
    learning_rate: float
    seed: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training run: held-out loss in nats per target token after the last round; of that round's strands the values
    of B, the encoder's part of them, and how many weights they belong to."""

    work: Work
    loss: float
    n_trained: int
    encoder_share: float
    n_weights: int
    cpu_s: float


class Study(StudySoFar, frozen=True, kw_only=True):
    """All that is known. `base_losses`: of the bare base on each set's test part."""

    settings: Settings
    base_losses: dict[str, float] = msgspec.field(default_factory=dict)
    runs: tuple[Run, ...] = ()

    def of(self, name: str, part: Part, qv_rank: int, selection: Selection) -> list[Run]:
        """Runs of one set, budget and selection, in the order of seeds and learning rates."""
        key = (name, part, qv_rank, selection)
        found = [run for run in self.runs if (run.work.set, run.work.part, run.work.qv_rank, run.work.selection) == key]
        return sorted(found, key=lambda run: (run.work.seed, run.work.learning_rate))

    def has(self, work: Work) -> bool:
        return any(run.work == work for run in self.runs)
