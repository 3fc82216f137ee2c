"""Trains what benchmarks.scope compares: every set, scope, learning rate and seed, one after the other."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from aggregator.merge.rules import RULES
from benchmarks.scope.results import Condition, Part, Point, Run, Settings, Study
from benchmarks.simulation import text_sets
from benchmarks.simulation.solo import Recipe, Solo, Spent, TextSession, n_parameters, weights
from benchmarks.simulation.text_sets import TextSet
from benchmarks.study.file import Store
from edge_client.engines.lean.evaluate import ROUGE_KINDS
from wire.messages import Scope

VALIDATION_SEED = 0
"""Learning rates are chosen with it, on the validation part, which the test runs do not see."""

SCOPES: Mapping[Condition, Scope] = {
    "base": "all",
    "all": "all",
    "all, by value": "all",
    "decoder": "decoder",
    "decoder, same ranks": "decoder",
}

RATE_OF: Mapping[Condition, Condition] = {"all, by value": "all", "decoder, same ranks": "decoder"}
"""Conditions beside the study's own two, and whose learning rate they take."""


def run_study(store: Store[Study], sets: Sequence[TextSet]) -> None:
    """Fill the store. Runs that it has already are not repeated."""
    torch.set_num_threads(1)
    settings = store.study.settings
    per_set = 1 + 2 * len(settings.learning_rates) + (2 + len(RATE_OF)) * len(settings.seeds)
    progress = _Progress(store, per_set * len(sets))
    rates: dict[tuple[str, Condition], float] = {}
    for text_set in sets:
        trainer = _Trainer(store, text_set, progress)
        trainer.base()
        for condition in ("all", "decoder"):
            rates[text_set.name, condition] = trainer.best_rate(condition)
        for seed in settings.seeds:
            reference = trainer.run("all", rates[text_set.name, "all"], seed)
            until_s = reference.points[0].training_s
            trainer.run("decoder", rates[text_set.name, "decoder"], seed, until_s=until_s)
    for text_set in sets:  # last: an interrupted study should have what it is about
        trainer = _Trainer(store, text_set, progress)
        for condition, like in RATE_OF.items():
            for seed in settings.seeds:
                trainer.run(condition, rates[text_set.name, like], seed)


class _Trainer:
    """Runs of one set."""

    def __init__(self, store: Store[Study], text_set: TextSet, progress: _Progress) -> None:
        self._store = store
        self._settings = store.study.settings
        self._set = text_set
        self._progress = progress
        self._judges: dict[Part, TextSession] = {
            "validation": TextSession(held_out=text_set.validation[: self._settings.n_validation]),
            "test": TextSession(held_out=text_set.test[: self._settings.n_test]),
        }

    def base(self) -> Run:
        """The base without an adapter on the test part."""
        known = self._store.study.known((self._set.name, "test", "base", 0.0, 0))
        return known or self._keep("test", "base", 0.0, 0, [self._point(self._solo("base", 1.0, 0, Path()), "test")])

    def best_rate(self, condition: Condition) -> float:
        """The learning rate of the lowest loss on the validation part after the equal number of steps."""
        runs = [self.run(condition, rate, VALIDATION_SEED, part="validation") for rate in self._settings.learning_rates]
        return min(runs, key=lambda run: run.points[0].loss).learning_rate

    def run(self, condition: Condition, rate: float, seed: int, *, part: Part = "test", until_s: float = 0.0) -> Run:
        """Train for all rounds, then on until training has taken `until_s` CPU seconds."""
        if known := self._store.study.known((self._set.name, part, condition, rate, seed)):
            return known
        with tempfile.TemporaryDirectory() as folder:
            solo = self._solo(condition, rate, seed, Path(folder))
            solo.begin()
            for _ in range(self._settings.rounds):
                solo.round(self._settings.local_steps)
            points = [self._point(solo, part)]
            if until_s:
                _go_on(solo, self._settings.local_steps, until_s)
                points.append(self._point(solo, part))
        return self._keep(part, condition, rate, seed, points)

    def _solo(self, condition: Condition, rate: float, seed: int, folder: Path) -> Solo:
        settings = self._settings
        recipe = Recipe(
            scope=SCOPES[condition],
            learning_rate=rate,
            max_rank=settings.max_ranks.get(condition, 1),
            n_parameters=equal_parameters(settings),
            seed=seed,
            batch=settings.batch,
            max_source_tokens=settings.max_source_tokens,
            max_target_tokens=settings.max_target_tokens,
            rule=settings.rule,
        )
        return Solo(recipe, text_sets.subset(self._set.train, settings.n_train, seed), folder)

    def _point(self, solo: Solo, part: Part) -> Point:
        """Loss on the whole part; ROUGE, which takes longest, on the first examples of the test part."""
        judge = self._judges[part]
        loss = solo.score(judge, len(judge.data("").held_out), rouge=False)["loss"]
        rouge = solo.score(judge, self._settings.n_written, rouge=True) if part == "test" else {}
        spent = solo.spent
        return Point(
            n_steps=spent.n_steps,
            tokens_per_s=spent.n_tokens / spent.step_s if spent.n_steps else 0.0,
            training_s=spent.training_s,
            encode_s=spent.encode_s,
            job_s=spent.job_s,
            wall_s=spent.wall_s,
            n_trained=solo.n_trained,
            encoder_share=solo.encoder_share,
            n_adapter=solo.n_adapter,
            loss=loss,
            **{kind: rouge.get(kind, 0.0) for kind in ROUGE_KINDS},
        )

    def _keep(self, part: Part, condition: Condition, rate: float, seed: int, points: Sequence[Point]) -> Run:
        run = Run(
            set=self._set.name, part=part, condition=condition, learning_rate=rate, seed=seed, points=tuple(points)
        )
        self._progress.tell(run)
        self._store.add(run)
        return run


def equal_parameters(settings: Settings) -> int:
    """Values that every strand of all scope has: what each condition trains, if it has as many."""
    every = weights("all")
    trains_a = RULES[settings.rule].TRAITS.trains_a
    return n_parameters(every, [settings.max_ranks["all"]] * len(every), trains_a=trains_a)


def _go_on(solo: Solo, local_steps: int, until_s: float) -> None:
    """More rounds, the last one shortened, until the next step would end later than the time that is left."""
    while (n_steps := min(local_steps, _steps_left(solo.spent, until_s))) > 0:
        solo.round(n_steps)


def _steps_left(spent: Spent, until_s: float) -> int:
    """At the mean CPU time per step so far, encoding included."""
    return int((until_s - spent.training_s) / (spent.training_s / spent.n_steps))


class _Progress:
    """Tells on stderr what was done and about how long the rest will take."""

    def __init__(self, store: Store[Study], n_runs: int) -> None:
        self._n_left = n_runs - len(store.study.runs)
        self._n_done = 0
        self._start_s = time.monotonic()

    def tell(self, run: Run) -> None:
        self._n_done += 1
        self._n_left -= 1
        left_s = (time.monotonic() - self._start_s) / self._n_done * self._n_left
        losses = ", ".join(f"{point.loss:.4f}" for point in run.points)
        name = f"{run.set}, {run.part}: {run.condition}, learning rate {run.learning_rate:g}, seed {run.seed}"
        print(f"{name}: loss {losses}; about {left_s / 60:.0f} min left", file=sys.stderr, flush=True)
