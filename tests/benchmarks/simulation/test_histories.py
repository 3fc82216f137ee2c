"""Histories of fleets: what is concluded of them, and that none is made twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.simulation.histories import Fleets, FleetStudy, cost_to, difference, loss_within, mean_loss, total_bytes
from benchmarks.study.runner import Runner
from benchmarks.study.tables import spread
from tests.fakes.histories import history, point


def test_the_worst_tenth_of_ten_boards_is_one() -> None:
    """With ten boards it is the board of the highest loss."""
    assert point(1, [4.0] * 9 + [7.0]).worst == 7.0


def test_bytes_to_a_loss_lie_between_the_evaluations_around_it() -> None:
    """In a straight line; a loss that is never reached has none."""
    run = history(0.1, [5, 4, 3])  # 100 bytes up and 200 down in each round

    assert cost_to(run, 3.5, total_bytes) == pytest.approx(450)
    assert cost_to(run, 2.9, total_bytes) is None
    assert loss_within(run, 450, total_bytes) == pytest.approx(3.5)
    assert loss_within(run, 1e9, total_bytes) == 3


def test_differences_are_of_pairs_of_seeds() -> None:
    """What differs between seeds alone drops out; one seed says nothing of a spread."""
    runs = [history(0.1, [5, 4.0 + seed], seed=seed) for seed in (1, 2, 3)]
    others = [history(0.1, [5, 3.5 + seed], seed=seed) for seed in (1, 2, 3)]

    found = difference(runs, others, mean_loss)

    assert found is not None
    assert found.spread.mean == pytest.approx(0.5)
    assert found.spread.deviation == pytest.approx(0)
    assert difference(runs[:1], others, mean_loss) is None
    assert spread([1.0]).deviation == 0


def test_a_study_goes_on_from_its_file(tmp_path: Path) -> None:
    """A run that the file knows is not repeated: no process is started for it."""
    run = history(0.1, [5, 4])
    path = tmp_path / "study.json"
    Runner(FleetStudy(machine="some machine"), path, processes=1).keep(runs=(run,))

    runs = Fleets(Runner(FleetStudy(machine="another"), path, processes=1), tmp_path, tmp_path)

    assert runs.run([run.setting]) == [run]
    assert runs.ground.startswith("some machine; builtin base ")
