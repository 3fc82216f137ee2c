"""Runs of one fleet whose boards each have text of one kind, with the methods that can share it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aggregator.merge.state import AdapterState
from benchmarks.personal.methods import FLEETS, Condition
from benchmarks.personal.texts import Sizes, texts
from benchmarks.simulation.setting import Recipe
from benchmarks.simulation.strands import equal_ranks
from braid_common.metrics import Subject, metric

if TYPE_CHECKING:
    from benchmarks.simulation.federation import Board, Federation


class Settings(Sizes, frozen=True, kw_only=True):
    """Settings that all runs of a study share. `n_own`: local strands of a weight; `n_shared`: global ones."""

    rounds: int
    local_steps: int
    batch: int
    learning_rate: float
    n_own: int
    n_shared: int
    seeds: tuple[int, ...]
    max_source_tokens: int
    max_target_tokens: int


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a run: `fleet` is one of methods.FLEETS."""

    set: str
    fleet: str
    seed: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A method's outcome: each board's loss on its own test text, of the global adapter and of its own model (the
    global one where it has none), and CPU seconds of the steps of their own, of all boards."""

    condition: str
    global_: tuple[float, ...]
    own: tuple[float, ...]
    own_s: float


class Run(Work, frozen=True, kw_only=True):
    """A fleet's outcomes; the base's losses; bytes and CPU seconds of the shared rounds, of all boards."""

    base: tuple[float, ...]
    outcomes: tuple[Outcome, ...]
    up_bytes: int
    down_bytes: int
    fleet_s: float

    @property
    def key(self) -> Work:
        """The run's name in the study."""
        return Work(set=self.set, fleet=self.fleet, seed=self.seed)

    @property
    def line(self) -> str:
        """The run in one line."""
        parts = [f"{outcome.condition} {mean(outcome.own):.4f}" for outcome in self.outcomes]
        return f"{self.set}, {self.fleet}, seed {self.seed}: base {mean(self.base):.4f}, {', '.join(parts)}"


def mean(losses: Sequence[float]) -> float:
    """The mean over boards."""
    return sum(losses) / len(losses)


def worst_tenth(losses: Sequence[float]) -> float:
    """The mean over the worst tenth of boards, of one at least."""
    count = max(1, len(losses) // 10)
    return sum(sorted(losses)[-count:]) / count


# --- one run, in a worker process ------------------------------------------------------------------------------------


def run_one(work: Work, *, settings: Settings, data_folder: Path, folder: Path) -> Run:
    """All rounds of a fleet with each of its methods, and the losses of every board on its own test text."""
    from benchmarks.simulation.federation import Board  # imports torch

    ranks = partial(equal_ranks, rank=settings.n_shared)
    parts = texts(work.set, data_folder, settings)
    boards = [Board(tuple(train), tuple(test), ranks) for train, test in parts]
    (name, first), *others = FLEETS[work.fleet].items()
    with tempfile.TemporaryDirectory(dir=folder) as files:
        make = partial(_federation, settings, work.seed, boards, Path(files))
        fleet = make(first)
        base = _losses(fleet)
        fleet.encode_texts()
        fleet.begin()
        states, own_s = [], 0.0
        for _ in range(settings.rounds):
            fleet.run_round()
            states.append(fleet.state)
            own_s += _take_own_steps(fleet, first)
        of_all = _losses(fleet)
        outcomes = [_outcome(name, fleet, first, of_all, own_s)]
        for name, condition in others:
            outcomes.append(_followed(name, make(condition), condition, states, of_all))
    return Run(
        **msgspec.structs.asdict(work),
        base=base,
        outcomes=tuple(outcomes),
        up_bytes=fleet.up_bytes,
        down_bytes=fleet.down_bytes,
        fleet_s=fleet.spent.job_s,
    )


def _followed(
    name: str, fleet: Federation, condition: Condition, states: Sequence[AdapterState], of_all: tuple[float, ...]
) -> Outcome:
    """The outcome of a method over the global adapters that another fleet's rounds led to."""
    own_s = 0.0
    for number, state in enumerate(states, 1):
        fleet.state, fleet.round = state, number
        if condition.method != "finetune" or number == len(states):
            own_s += _take_own_steps(fleet, condition)
    return _outcome(name, fleet, condition, of_all, own_s)


def _take_own_steps(fleet: Federation, condition: Condition) -> float:
    """The steps that the boards' strands have to themselves behind a round, if any; their CPU seconds."""
    if not condition.has_own_steps:
        return 0.0
    start_s = time.process_time()
    fleet.train_own()
    return time.process_time() - start_s


def _outcome(name: str, fleet: Federation, condition: Condition, of_all: tuple[float, ...], own_s: float) -> Outcome:
    own = of_all if condition.subject == "global" else _losses(fleet, condition.subject)
    return Outcome(condition=name, global_=of_all, own=own, own_s=own_s)


def _losses(fleet: Federation, subject: Subject = "global") -> tuple[float, ...]:
    """Each board's loss on its own test text, of the global adapter or of the board's own model."""
    from benchmarks.simulation.session import judge_session  # imports torch

    return tuple(
        fleet.evaluate(board.held_out, session=judge_session(), own=None if subject == "global" else index)[
            metric(subject, "loss")
        ]
        for index, board in enumerate(fleet.boards)
    )


def _federation(
    settings: Settings, seed: int, boards: Sequence[Board], folder: Path, condition: Condition
) -> Federation:
    from benchmarks.simulation.federation import Federation  # imports torch
    from benchmarks.simulation.session import process_session

    recipe = Recipe(
        rule="weave",
        learning_rate=settings.learning_rate,
        seed=seed,
        rounds=settings.rounds,
        local_steps=settings.local_steps,
        batch=settings.batch,
        differences=True,
        max_source_tokens=settings.max_source_tokens,
        max_target_tokens=settings.max_target_tokens,
        personal=condition.personal(rank=settings.n_own, fleet_steps=settings.rounds * settings.local_steps),
        keep=condition.penalty,
    )
    return Federation(recipe, boards, folder, process_session())
