"""Runs what benchmarks.selection compares, several runs at once, and tells how long the rest will take."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, get_args

from benchmarks.selection import runs
from benchmarks.selection.results import Part, Selection, Study, Work
from benchmarks.study.file import Store

VALIDATION_SEED = 0
"""Learning rates are chosen with it, on the validation part, which the test runs do not see."""

SELECTIONS: tuple[Selection, ...] = get_args(Selection)


def run_study(store: Store[Study], names: Sequence[str], data_folder: Path, processes: int) -> None:
    """Fill the store. Runs that it has already are not repeated."""
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as profiles,
        ProcessPoolExecutor(processes, context, runs.begin_worker) as pool,
    ):
        _Study(store, names, data_folder, Path(profiles), pool).run()


class _Study:
    def __init__(
        self, store: Store[Study], names: Sequence[str], data_folder: Path, profiles: Path, pool: ProcessPoolExecutor
    ) -> None:
        self._store = store
        self._settings = store.study.settings
        self._names = names
        self._data_folder = data_folder
        self._profiles = profiles
        self._pool = pool
        n_runs = len(names) * len(self._settings.qv_ranks) * len(SELECTIONS)
        n_each = len(self._settings.learning_rates) + len(self._settings.seeds)
        known = sum(run.work.set in names for run in store.study.runs)
        self._progress = _Progress(n_runs * n_each - known)

    def run(self) -> None:
        self._prepare()
        rates = self._settings.learning_rates
        self._train(work for cell in self._cells() for work in _works(cell, "validation", rates, [VALIDATION_SEED]))
        self._train(
            work
            for cell in self._cells()
            for work in _works(cell, "test", [self._best_rate(*cell)], self._settings.seeds)
        )

    def _cells(self) -> list[tuple[str, int, Selection]]:
        return [
            (name, r, selection) for name in self._names for r in self._settings.qv_ranks for selection in SELECTIONS
        ]

    def _best_rate(self, name: str, qv_rank: int, selection: Selection) -> float:
        """The learning rate of the lowest loss on the validation part."""
        runs = self._store.study.of(name, "validation", qv_rank, selection)
        return min(runs, key=lambda run: run.loss).work.learning_rate

    def _prepare(self) -> None:
        """The bases' losses, and profiles for the runs that are still to come."""
        for name in self._names:
            if name not in self._store.study.base_losses:
                loss = self._submit(runs.base_loss, name).result()
                self._store.keep(base_losses=self._store.study.base_losses | {name: loss})
        made = {
            self._submit(runs.profile, self._profiles, name, seed): (name, seed)
            for name in self._names
            for seed in sorted({VALIDATION_SEED, *self._settings.seeds})
            if not self._has_all(name, seed)
        }
        for future in as_completed(made):
            future.result()
            print("{}: profiled with seed {}".format(*made[future]), file=sys.stderr, flush=True)

    def _has_all(self, name: str, seed: int) -> bool:
        """Whether all runs of a set and seed are known."""
        n_each = (seed == VALIDATION_SEED) * len(self._settings.learning_rates) + (seed in self._settings.seeds)
        n_known = sum((run.work.set, run.work.seed) == (name, seed) for run in self._store.study.runs)
        return n_known == n_each * len(self._settings.qv_ranks) * len(SELECTIONS)

    def _train(self, works: Iterable[Work]) -> None:
        self._progress.begin()
        left = [work for work in works if not self._store.study.has(work)]
        for future in as_completed([self._submit(runs.train, self._profiles, work) for work in left]):
            run = future.result()
            self._store.add(run)
            self._progress.tell(run.work, run.loss)

    def _submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        return self._pool.submit(function, self._settings, self._data_folder, *args)


def _works(cell: tuple[str, int, Selection], part: Part, rates: Sequence[float], seeds: Sequence[int]) -> list[Work]:
    name, qv_rank, selection = cell
    return [
        Work(set=name, part=part, qv_rank=qv_rank, selection=selection, learning_rate=rate, seed=seed)
        for rate in rates
        for seed in seeds
    ]


class _Progress:
    """Tells on stderr what was done and about how long the rest will take."""

    def __init__(self, n_left: int) -> None:
        self._n_left = n_left
        self._n_done = 0
        self._start_s = 0.0

    def begin(self) -> None:
        """Training begins now, unless it has begun."""
        self._start_s = self._start_s or time.monotonic()

    def tell(self, work: Work, loss: float) -> None:
        self._n_done += 1
        self._n_left -= 1
        left_s = (time.monotonic() - self._start_s) / self._n_done * self._n_left
        name = f"{work.set}, {work.part}, budget of q,v at {work.qv_rank}: {work.selection}"
        print(
            f"{name}, learning rate {work.learning_rate:g}, seed {work.seed}: loss {loss:.4f}; "
            f"about {left_s / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )
