"""Runs with and without `train.keep`: boards that train alone behind a fleet's rounds, and tasks one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

import msgspec

from benchmarks.personal.texts import Sizes, texts
from benchmarks.simulation.setting import Recipe
from benchmarks.simulation.strands import equal_ranks
from benchmarks.study.runner import Study
from wire.run import Keep, KeepImportance

if TYPE_CHECKING:
    from benchmarks.simulation.federation import Board, Federation

Trained = Literal["both factors", "B alone"]

RULES: dict[Trained, str] = {"both factors": "weave", "B alone": "braid"}
"""A merge rule that trains these."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A hold on a board near the received model: a penalty of this weight, a smaller learning rate, or nothing."""

    importance: KeepImportance = "fisher"
    weight: float = 0.0
    learning_rate_share: float = 1.0

    @property
    def title(self) -> str:
        """The condition in words."""
        if self.weight:
            return f"keep {self.weight:g}, {self.importance}"
        return "nothing" if self.learning_rate_share == 1 else f"learning rate × {self.learning_rate_share:g}"


class KeepingSettings(Sizes, frozen=True, kw_only=True):
    """Settings that all runs of a study share.

    Attributes:
        fleet_rounds: rounds of all boards before one of them trains alone.
        alone_steps: optimiser steps of that board.
        task_rounds: rounds of one board, before the next task comes.
        n_alone: boards of which each trains alone once.
    """

    fleet_rounds: int
    alone_steps: int
    task_rounds: int
    n_alone: int
    local_steps: int
    batch: int
    learning_rate: float
    rank: int
    seeds: tuple[int, ...]
    conditions: tuple[Condition, ...]
    max_source_tokens: int
    max_target_tokens: int


class KeepingWork(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a run, which makes all conditions."""

    set: str
    trained: Trained
    seed: int


class Alone(msgspec.Struct, frozen=True, kw_only=True):
    """Losses on a board's own test text and on all others', mean over the boards that trained alone: `before` of the
    fleet's adapter, `after` of the board's."""

    own_before: float
    own_after: float
    others_before: float
    others_after: float


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """`losses[t][i]`: loss on the test text of task i after training on tasks 0 to t; i up to t."""

    losses: tuple[tuple[float, ...], ...]

    @property
    def just_learnt(self) -> float:
        """Mean loss on each task when training on it ends."""
        return fmean(row[-1] for row in self.losses)

    @property
    def final(self) -> float:
        """Mean loss on all tasks at the end."""
        return fmean(self.losses[-1])

    @property
    def forgetting(self) -> float:
        """Average forgetting of Chaudhry et al. (arXiv 1801.10112), of losses: over the tasks but the last, the mean of
        the final loss less the best one before."""
        n_tasks = len(self.losses)
        best = [min(row[task] for row in self.losses[task:-1]) for task in range(n_tasks - 1)]
        return fmean(self.losses[-1][task] - best[task] for task in range(n_tasks - 1))


class KeepingRun(KeepingWork, frozen=True, kw_only=True):
    """A run's outcome, by condition in the settings' order."""

    alone: tuple[Alone, ...]
    streams: tuple[Stream, ...]

    @property
    def key(self) -> KeepingWork:
        """The run's name in the study."""
        return KeepingWork(set=self.set, trained=self.trained, seed=self.seed)

    @property
    def line(self) -> str:
        """The run in one line."""
        parts = [
            f"others {alone.others_after - alone.others_before:+.4f}, forgetting {stream.forgetting:+.4f}"
            for alone, stream in zip(self.alone, self.streams, strict=True)
        ]
        return f"{self.set}, {self.trained}, seed {self.seed}: {'; '.join(parts)}"


class KeepingStudy(Study, frozen=True, kw_only=True):
    """All that is known."""

    settings: KeepingSettings
    runs: tuple[KeepingRun, ...] = ()


# --- one run, in a worker process ------------------------------------------------------------------------------------


def run_one(work: KeepingWork, *, settings: KeepingSettings, data_folder: Path, folder: Path) -> KeepingRun:
    """Both experiments under every condition."""
    from benchmarks.simulation.federation import Board  # imports torch

    ranks = partial(equal_ranks, rank=settings.rank)
    parts = texts(work.set, data_folder, settings)
    boards = [Board(tuple(train), tuple(test), ranks) for train, test in parts]
    with tempfile.TemporaryDirectory(dir=folder) as files:
        make = partial(_federation, settings, work, boards, Path(files))
        fleet = make(Condition())
        fleet.encode_texts()
        fleet.begin()
        for _ in range(settings.fleet_rounds):
            fleet.run_round()
        before = _losses(fleet, range(len(boards)))
        alone, streams = [], []
        for condition in settings.conditions:
            follower = make(condition)
            alone.append(_alone(follower, fleet, before, settings))
            streams.append(_stream(make(condition), settings))
    return KeepingRun(**msgspec.structs.asdict(work), alone=tuple(alone), streams=tuple(streams))


def _alone(follower: Federation, fleet: Federation, before: Sequence[float], settings: KeepingSettings) -> Alone:
    """Some boards in turn, each from the fleet's adapter."""
    own, others = [], []
    for board in range(settings.n_alone):
        follower.state, follower.round = fleet.state, fleet.round
        _train(follower, board, settings.alone_steps)
        after = _losses(follower, range(len(before)))
        own.append((before[board], after[board]))
        others.append([_mean_but(losses, board) for losses in (before, after)])
    return Alone(
        own_before=fmean(pair[0] for pair in own),
        own_after=fmean(pair[1] for pair in own),
        others_before=fmean(pair[0] for pair in others),
        others_after=fmean(pair[1] for pair in others),
    )


def _stream(fleet: Federation, settings: KeepingSettings) -> Stream:
    """Each board's text is a task; the first basis is made of the first task alone."""
    fleet.begin([fleet.profile(0)])
    rows = []
    for task in range(len(fleet.boards)):
        for _ in range(settings.task_rounds):
            _train(fleet, task, settings.local_steps)
        rows.append(_losses(fleet, range(task + 1)))
    return Stream(losses=tuple(rows))


def _train(fleet: Federation, board: int, n_steps: int) -> None:
    """A round of one board."""
    fleet.merge(map(fleet.contribution, fleet.updates([board], n_steps=n_steps)))


def _losses(fleet: Federation, boards: Sequence[int]) -> tuple[float, ...]:
    """The global adapter's losses on these boards' test text."""
    from benchmarks.simulation.session import judge_session  # imports torch

    return tuple(fleet.evaluate(fleet.boards[board].held_out, session=judge_session())["loss"] for board in boards)


def _mean_but(losses: Sequence[float], left_out: int) -> float:
    return fmean(loss for index, loss in enumerate(losses) if index != left_out)


def _federation(
    settings: KeepingSettings, work: KeepingWork, boards: Sequence[Board], folder: Path, condition: Condition
) -> Federation:
    from benchmarks.simulation.federation import Federation  # imports torch
    from benchmarks.simulation.session import process_session

    recipe = Recipe(
        rule=RULES[work.trained],
        learning_rate=settings.learning_rate * condition.learning_rate_share,
        seed=work.seed,
        rounds=100_000,
        local_steps=settings.local_steps,
        batch=settings.batch,
        max_source_tokens=settings.max_source_tokens,
        max_target_tokens=settings.max_target_tokens,
        keep=Keep(weight=condition.weight, importance=condition.importance) if condition.weight else None,
    )
    return Federation(recipe, boards, folder, process_session())
