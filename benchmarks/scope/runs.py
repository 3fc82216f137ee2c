"""Runs of benchmarks.scope: one board trains a text set in one scope, and is evaluated."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from aggregator.merge.rules import RULES
from benchmarks.simulation.lone_board import VALIDATION_SEED, BoardSettings, LoneBoard, Part
from benchmarks.simulation.strands import n_parameters, ranks_within, trained, weights
from benchmarks.study.runner import Runner, Study
from edge_client.evaluation.metrics import ROUGE_KINDS
from wire.run import Scope

if TYPE_CHECKING:
    from benchmarks.simulation.federation import Federation, Spent

Condition = Literal["base", "all", "all, by value", "decoder", "decoder, same ranks"]

SCOPES: Mapping[Condition, Scope] = {
    "base": "all",
    "all": "all",
    "all, by value": "all",
    "decoder": "decoder",
    "decoder, same ranks": "decoder",
}

RATE_OF: Mapping[Condition, Condition] = {"all, by value": "all", "decoder, same ranks": "decoder"}
"""Conditions beside the study's own two, and whose learning rate they take."""


class Settings(BoardSettings, frozen=True, kw_only=True):
    """Settings that all runs share. `n_written`: texts for ROUGE; `max_ranks`: strands per weight, by condition."""

    n_written: int
    max_ranks: dict[str, int]
    rule: str = "braid"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A run when it was evaluated: times (s) as in benchmarks.simulation.federation.Spent, loss in nats per target
    token, ROUGE F1 (0…1), values that the last round trained and that the merged adapter has."""

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


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a run: a training run, or the bare base at learning rate 0."""

    set: str
    part: Part
    condition: Condition
    learning_rate: float
    seed: int


class Run(Work, frozen=True, kw_only=True):
    """A run's outcome. `points`: after the equal number of steps, then at equal time."""

    points: tuple[Point, ...]

    @property
    def key(self) -> Work:
        """The run's name in the study."""
        return Work(**{name: getattr(self, name) for name in Work.__struct_fields__})

    @property
    def line(self) -> str:
        """The run in one line."""
        losses = ", ".join(f"{point.loss:.4f}" for point in self.points)
        name = f"{self.set}, {self.part}: {self.condition}, learning rate {self.learning_rate:g}, seed {self.seed}"
        return f"{name}: loss {losses}"


class ScopeStudy(Study, frozen=True, kw_only=True):
    """All that is known."""

    settings: Settings
    runs: tuple[Run, ...] = ()

    def of(self, name: str, part: Part, condition: Condition) -> list[Run]:
        """Runs of one set, part and condition."""
        return [run for run in self.runs if (run.set, run.part, run.condition) == (name, part, condition)]


# --- which runs -------------------------------------------------------------------------------------------------------


def run_study(runner: Runner[ScopeStudy], names: Sequence[str], data_folder: Path, folder: Path) -> None:
    """Make whatever runs the study lacks, those that it is about first."""
    settings = runner.study.settings
    make = partial(run_one, settings=settings, data_folder=data_folder, folder=folder, until_s={})
    runner.run([*_bases(names), *_tuning(settings, names)], make)
    rates = {(name, condition): _best_rate(runner.study, name, condition) for name in names for condition in SCOPES}
    references = runner.run(_tests(settings, rates, names, ["all"]), make)
    until_s = {(run.set, run.seed): run.points[0].training_s for run in references}
    runner.run(_tests(settings, rates, names, ["decoder"]), partial(make, until_s=until_s))
    runner.run(_tests(settings, rates, names, list(RATE_OF)), make)


def _bases(names: Sequence[str]) -> Iterator[Work]:
    for name in names:
        yield Work(set=name, part="test", condition="base", learning_rate=0.0, seed=0)


def _tuning(settings: Settings, names: Sequence[str]) -> Iterator[Work]:
    """Runs that try learning rates, of the study's own two conditions."""
    conditions: tuple[Condition, ...] = ("all", "decoder")
    for name in names:
        for condition in conditions:
            for rate in settings.learning_rates:
                yield Work(set=name, part="validation", condition=condition, learning_rate=rate, seed=VALIDATION_SEED)


def _best_rate(study: ScopeStudy, name: str, condition: Condition) -> float:
    """The learning rate of the lowest loss on the validation part after the equal number of steps."""
    runs = study.of(name, "validation", RATE_OF.get(condition, condition))
    return min(runs, key=lambda run: run.points[0].loss).learning_rate if runs else 0.0


def _tests(
    settings: Settings,
    rates: Mapping[tuple[str, Condition], float],
    names: Sequence[str],
    conditions: Sequence[Condition],
) -> Iterator[Work]:
    for name in names:
        for condition in conditions:
            for seed in settings.seeds:
                rate = rates[name, condition]
                yield Work(set=name, part="test", condition=condition, learning_rate=rate, seed=seed)


# --- one run, in a worker process -------------------------------------------------------------------------------------


def run_one(
    work: Work, *, settings: Settings, data_folder: Path, folder: Path, until_s: Mapping[tuple[str, int], float]
) -> Run:
    """Train for all rounds, then on until training has taken the CPU seconds that `until_s` has for a set and seed."""
    board = LoneBoard(settings, work.set, data_folder)
    evaluate = partial(_point, board=board, part=work.part, n_written=settings.n_written)
    with tempfile.TemporaryDirectory(dir=folder) as files:
        federation = board.federation(
            Path(files),
            partial(ranks_within, n_parameters=equal_parameters(settings)),
            work.seed,
            rule=settings.rule,
            scope=SCOPES[work.condition],
            learning_rate=work.learning_rate or 1.0,
            max_rank=settings.max_ranks.get(work.condition, 1),
        )
        if work.condition == "base":
            return _run(work, [evaluate(federation)])
        federation.begin()
        federation.forget_encodings()  # the profile's: training's time has that of all that it reads
        for _ in range(settings.rounds):
            federation.run_round()
        points = [evaluate(federation)]
        if most_s := until_s.get((work.set, work.seed)):
            while (n_steps := min(settings.local_steps, _steps_left(federation.spent, most_s))) > 0:
                federation.run_round(n_steps)
            points.append(evaluate(federation))
    return _run(work, points)


def _run(work: Work, points: Sequence[Point]) -> Run:
    return Run(**{name: getattr(work, name) for name in Work.__struct_fields__}, points=tuple(points))


def equal_parameters(settings: Settings) -> int:
    """Values that every strand of all scope has: what each condition trains, if it has as many."""
    every = weights("all")
    trains_a = RULES[settings.rule].TRAITS.trains_a
    return n_parameters(every, [settings.max_ranks["all"]] * len(every), trains_a=trains_a)


def _steps_left(spent: Spent, until_s: float) -> int:
    """Steps that fit before `until_s`, at the mean CPU time per step so far, encoding included."""
    return int((until_s - spent.training_s) / (spent.training_s / spent.n_steps))


def _point(federation: Federation, board: LoneBoard, part: Part, n_written: int) -> Point:
    """Loss on the whole part; ROUGE, which takes longest, on the first examples of the test part."""
    spent = federation.spent
    loss = board.evaluate(federation, part)["loss"]
    rouge = board.evaluate(federation, part, n_written, rouge=True) if part == "test" else {}
    ranks = trained(federation.weights, federation.ranks[0], trains_a=federation.rule.TRAITS.trains_a)
    return Point(
        n_steps=spent.n_steps,
        tokens_per_s=spent.n_tokens / spent.step_s if spent.n_steps else 0.0,
        training_s=spent.training_s,
        encode_s=spent.encode_s,
        job_s=spent.job_s,
        wall_s=spent.wall_s,
        n_trained=ranks.n_values,
        encoder_share=ranks.encoder_share,
        n_adapter=sum(w.frozen_b.size + w.frozen_a.size for w in federation.state.weights.values()),
        loss=loss,
        **{kind: rouge.get(kind, 0.0) for kind in ROUGE_KINDS},
    )
