"""Simulated fleets: who holds what, at which rank, and what is concluded of their runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.merge_rules.cases import Case, cases, rules_of
from benchmarks.merge_rules.settings import best_rate, extension, main_settings
from benchmarks.simulation.histories import Fleets, FleetStudy, difference, mean_loss, total_bytes_to
from benchmarks.simulation.setting import RANKS, History, Mix, Point, Setting, board_ranks
from benchmarks.simulation.texts import Partition, Pool, boards, source_shares, whole_counts
from benchmarks.study.runner import Runner
from benchmarks.study.tables import spread

SETTING = Setting(rule="braid", learning_rate=0.01, seed=1)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=12), st.integers(0, 200))
def test_counts_are_whole_and_sum_to_the_total(parts: list[float], total: int) -> None:
    """No board gets an example more or less than it should, and none of its shares is off by more than one."""
    shares = [part / sum(parts) for part in parts]

    counts = whole_counts(shares, total)

    assert sum(counts) == total
    assert all(abs(count - share * total) <= 1 for count, share in zip(counts, shares, strict=True))


@pytest.mark.parametrize("partition", ["library", "dirichlet-0.1", "dirichlet-1"])
def test_boards_hold_as_much_as_they_should_and_never_share(partition: Partition) -> None:
    """Training and held-out text are apart, on every board and between boards, and all boards hold equally many."""
    texts = boards(_pools(), partition, seed=3, n_train=20, n_held_out=4)

    train = [example.source for text in texts for example in text.train]
    held_out = [example.source for text in texts for example in text.held_out]
    assert [len(text.train) for text in texts] == [20] * 10
    assert [len(text.held_out) for text in texts] == [4] * 10
    assert len(set(train)) == len(train)
    assert not set(train) & set(held_out)


def test_a_smaller_alpha_gives_boards_that_differ_more() -> None:
    """By library every board has one source; with α = 0.1 one has most of a board's text, with α = 1 a smaller part."""
    largest = {name: source_shares(name, 10, seed=1).max(axis=1).mean() for name in ("dirichlet-0.1", "dirichlet-1")}

    assert source_shares("library", 10, seed=1).max(axis=1).mean() == 1
    assert 1 > largest["dirichlet-0.1"] > largest["dirichlet-1"] > 0.1


@pytest.mark.parametrize("mix", list(RANKS))
def test_ranks_are_those_of_the_mix_in_an_order_of_the_seed(mix: Mix) -> None:
    """No source is always the small one, and every rule of a seed sees the same fleet."""
    drawn = [board_ranks(Setting(rule=rule, learning_rate=0.1, seed=1, mix=mix)) for rule in ("braid", "flexlora")]

    assert drawn[0] == drawn[1]
    assert sorted(drawn[0]) == sorted(RANKS[mix])


def test_the_worst_tenth_of_ten_boards_is_one() -> None:
    """With ten boards it is the board of the highest loss."""
    assert _point(1, [4.0] * 9 + [7.0]).worst == 7.0


def test_the_best_rate_is_that_of_the_lowest_last_loss() -> None:
    """A run that diverged is not chosen, however low its loss was before."""
    runs = [_history(0.1, [5, 3]), _history(0.2, [5, 2]), _history(0.4, [5, 1], failed="diverged")]

    assert best_rate(runs) == 0.2


def test_the_grid_is_extended_where_the_best_is_at_its_edge() -> None:
    """By a factor of two, towards the side of the best."""
    assert extension([0.1, 0.2, 0.4], 0.4) == 0.8
    assert extension([0.1, 0.2, 0.4], 0.1) == 0.05
    assert extension([0.1, 0.2, 0.4], 0.2) is None


def test_only_equal_ranks_are_given_to_a_rule_that_needs_them() -> None:
    """No run is planned that the server would refuse."""
    rates = dict.fromkeys(cases(rules_of("equal"), ["equal", "uniform"]), 0.1)
    planned = list(main_settings(rates, ["library"], ["equal", "uniform"], {}))

    assert {setting.mix for setting in planned if setting.rule == "fedavg"} == {"equal"}
    assert {setting.mix for setting in planned if setting.rule == "braid"} == {"equal", "uniform"}


def test_every_mix_has_a_learning_rate_of_its_own() -> None:
    """What a rule's rate is on one mix decides nothing on another."""
    rates: dict[Case, float] = {("braid", "equal"): 0.1, ("braid", "uniform"): 0.2}
    planned = list(main_settings(rates, ["library"], ["equal", "uniform"], {}))

    assert {(setting.mix, setting.learning_rate) for setting in planned} == {("equal", 0.1), ("uniform", 0.2)}


def test_bytes_to_a_loss_lie_between_the_evaluations_around_it() -> None:
    """In a straight line; a loss that is never reached has none."""
    history = _history(0.1, [5, 4, 3])  # 100 bytes up and 200 down in each round

    assert total_bytes_to(history, 3.5) == pytest.approx(450)
    assert total_bytes_to(history, 2.9) is None


def test_differences_are_of_pairs_of_seeds() -> None:
    """What differs between seeds alone drops out; one seed says nothing of a spread."""
    runs = [_history(0.1, [5, 4.0 + seed], seed=seed) for seed in (1, 2, 3)]
    others = [_history(0.1, [5, 3.5 + seed], seed=seed) for seed in (1, 2, 3)]

    found = difference(runs, others, mean_loss)

    assert found is not None
    assert found.spread.mean == pytest.approx(0.5)
    assert found.spread.deviation == pytest.approx(0)
    assert difference(runs[:1], others, mean_loss) is None
    assert spread([1.0]).deviation == 0


def test_a_study_goes_on_from_its_file(tmp_path: Path) -> None:
    """A run that the file knows is not repeated: no process is started for it."""
    history = _history(0.1, [5, 4])
    path = tmp_path / "study.json"
    path.write_bytes(msgspec.json.encode(FleetStudy(machine="some machine", runs=(history,))))

    runs = Fleets(Runner(FleetStudy(machine="another"), path, processes=1), tmp_path, tmp_path)

    assert runs.run([history.setting]) == [history]
    assert runs.machine == "some machine"


def _pools() -> list[Pool]:
    """Ten sources, with more than enough text for any shares."""
    return [
        Pool(
            name,
            tuple((f"{name} {i}", "target") for i in range(300)),
            tuple((f"{name} held out {i}", "target") for i in range(60)),
        )
        for name in "abcdefghij"
    ]


def _point(round_: int, losses: list[float]) -> Point:
    return Point(round=round_, up_bytes=100 * round_, down_bytes=200 * round_, losses=tuple(losses))


def _history(rate: float, losses: list[float], *, seed: int = 1, failed: str = "") -> History:
    setting = Setting(rule="braid", learning_rate=rate, seed=seed)
    points = tuple(_point(round_, [loss] * 10) for round_, loss in enumerate(losses))
    return History(setting=setting, points=points, failed=failed)
