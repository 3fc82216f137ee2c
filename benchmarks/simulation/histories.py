"""Studies of fleets: each setting is run once, and the runs' histories are kept and compared."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import msgspec

from benchmarks.simulation.setting import History, Point, Setting
from benchmarks.simulation.texts import boards, load_pools
from benchmarks.study.cli import work_folder
from benchmarks.study.runner import Runner, Study
from benchmarks.study.tables import Difference, paired
from edge_client.host.machine import describe_machine

QUICK: Mapping[str, int] = {"rounds": 2, "local_steps": 1, "n_train": 16, "n_held_out": 2}
"""Changes that --quick makes to every setting."""

Measure = Callable[[History], float]
Cost = Callable[[Point], float]


class FleetStudy(Study, frozen=True, kw_only=True):
    """Histories of fleets, which have no settings in common."""

    settings: None = None
    runs: tuple[History, ...] = msgspec.field(default=(), name="histories")


class Fleets:
    """Runs settings once each, and knows the histories."""

    def __init__(self, runner: Runner[FleetStudy], data_folder: Path, folder: Path) -> None:
        self._runner = runner
        self._data_folder, self._folder = data_folder, folder

    @property
    def ground(self) -> str:
        """The machine and the base of the study."""
        return self._runner.study.ground

    @property
    def histories(self) -> tuple[History, ...]:
        """The histories of all runs that were made."""
        return self._runner.study.runs

    def known(self, settings: Iterable[Setting]) -> list[History]:
        """Histories of those settings that have run, in their order."""
        return self._runner.known(settings)

    def run(self, settings: Iterable[Setting]) -> list[History]:
        """Histories of all these settings, in their order; what is not known yet is run first."""
        wanted = list(settings)
        for partition in {setting.partition for setting in self._runner.missing(wanted)}:
            load_pools(self._data_folder, self._folder, partition)  # once, before workers ask for it
        return self._runner.run(wanted, partial(run_one, data_folder=self._data_folder, folder=self._folder))


@contextmanager
def fleets(options: argparse.Namespace) -> Iterator[Fleets]:
    """The study that a command line asks for; its processes end with it."""
    with (
        work_folder(options) as folder,
        Runner(FleetStudy(machine=describe_machine("torch")), options.json, options.processes) as runner,
    ):
        yield Fleets(runner, options.data_folder, folder)


def run_one(setting: Setting, *, data_folder: Path, folder: Path) -> History:
    """Run one fleet. Called in worker processes, each with files of its own."""
    from benchmarks.simulation.fleet import run_fleet  # imports torch
    from benchmarks.simulation.session import process_session

    pools = load_pools(data_folder, folder, setting.partition)
    texts = boards(pools, setting.partition, setting.seed, setting.n_train, setting.n_held_out)
    return run_fleet(setting, texts, folder / f"process-{os.getpid()}", process_session())


# --- measures ---------------------------------------------------------------------------------------------------------


def difference(histories: Iterable[History], reference: Iterable[History], measure: Measure) -> Difference | None:
    """`histories` minus `reference`, by pairs of equal seeds; None with fewer than two seeds in common."""
    known = {history.setting.seed: measure(history) for history in reference}
    deltas = [measure(history) - known[history.setting.seed] for history in histories if history.setting.seed in known]
    return paired(deltas) if len(deltas) > 1 else None


def mean_loss(history: History) -> float:
    """Mean loss over boards at the end, in nats per target token."""
    return history.last.mean


def worst_loss(history: History) -> float:
    """Mean loss of the worst tenth of boards at the end, in nats per target token."""
    return history.last.worst


def total_bytes(point: Point) -> float:
    """Bytes of the fleet so far, up and down."""
    return point.up_bytes + point.down_bytes


def training_s(point: Point) -> float:
    """CPU seconds of the boards' training so far."""
    return point.train_s


def cost_to(history: History, loss: float, cost: Cost) -> float | None:
    """The cost of a fleet until its mean loss is `loss`, linear between evaluations; None if it never is."""
    for before, after in pairwise(history.points):
        if after.mean <= loss:
            share = (before.mean - loss) / (before.mean - after.mean) if before.mean > loss else 0.0
            return cost(before) + share * (cost(after) - cost(before))
    return None


def loss_within(history: History, budget: float, cost: Cost) -> float:
    """The mean loss of a fleet when it has spent `budget`, linear between evaluations; the last one where it spends
    less."""
    for before, after in pairwise(history.points):
        if cost(after) >= budget:
            share = (budget - cost(before)) / (cost(after) - cost(before))
            return before.mean + share * (after.mean - before.mean)
    return history.last.mean
