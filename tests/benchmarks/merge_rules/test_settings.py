"""The comparison of merge rules: which runs are planned, at which learning rate."""

from __future__ import annotations

from benchmarks.merge_rules.cases import COMBINED, Case, cases, contestant_of, rules_of
from benchmarks.merge_rules.settings import best_rate, extension, main_settings
from tests.fakes.histories import history


def test_the_best_rate_is_that_of_the_lowest_last_loss() -> None:
    """A run that diverged is not chosen, however low its loss was before."""
    runs = [history(0.1, [5, 3]), history(0.2, [5, 2]), history(0.4, [5, 1], failed="diverged")]

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


def test_a_contestant_of_two_parts_is_known_by_its_runs() -> None:
    """The rule by itself and with something beside it are tuned and told apart."""
    rates = dict.fromkeys(cases(rules_of("uniform"), ["uniform"]), 0.1)
    planned = list(main_settings(rates, ["library"], ["uniform"], {}))

    assert {contestant_of(setting) for setting in planned} == {contestant for contestant, _ in rates} > set(COMBINED)
    assert {(setting.rule, setting.nested, setting.drift) for setting in planned} >= {
        ("weave", 0, 0.0),
        ("weave", 3, 0.0),
        ("delta", 0, 3.0),
        ("rank-partitioned", 3, 0.0),
    }
