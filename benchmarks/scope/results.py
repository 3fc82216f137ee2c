"""What benchmarks.scope finds."""

from __future__ import annotations

from typing import Literal

import msgspec

from benchmarks.study.file import StudySoFar

Condition = Literal["base", "all", "all, by value", "decoder", "decoder, same ranks"]
Part = Literal["validation", "test"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs of a study share. Lengths are in tokens; `max_ranks` has the strands per weight by condition."""

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
    n_written: int
    max_ranks: dict[str, int]
    rule: str = "braid"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A run when it was evaluated: seconds as in benchmarks.simulation.solo.Spent, loss in nats per target token,
    ROUGE F1."""

    n_steps: int = 0
    tokens_per_s: float = 0.0
    training_s: float = 0.0
    encode_s: float = 0.0
    job_s: float = 0.0
    wall_s: float = 0.0
    n_trained: int = 0
    encoder_share: float = 0.0
    n_adapter: int = 0
    loss: float
    rouge1: float = 0.0
    rouge2: float = 0.0
    rougeL: float = 0.0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training run, or the bare base. `points`: after the equal number of steps, then at equal time."""

    set: str
    part: Part
    condition: Condition
    learning_rate: float
    seed: int
    points: tuple[Point, ...]

    @property
    def key(self) -> tuple[str, str, str, float, int]:
        return self.set, self.part, self.condition, self.learning_rate, self.seed


class Study(StudySoFar, frozen=True, kw_only=True):
    """All that is known."""

    settings: Settings
    runs: tuple[Run, ...] = ()

    def of(self, name: str, part: Part, condition: Condition) -> list[Run]:
        return [run for run in self.runs if (run.set, run.part, run.condition) == (name, part, condition)]

    def known(self, run_key: tuple[str, str, str, float, int]) -> Run | None:
        return next((run for run in self.runs if run.key == run_key), None)
