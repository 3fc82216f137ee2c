"""The comparison of merge rules: which runs are planned, at which learning rate."""

from __future__ import annotations

import msgspec

from benchmarks.merge_rules.cases import COMBINED, Case, case_of, cases, contestant_of, rules_of
from benchmarks.merge_rules.settings import best_rate, extension, known_choice, main_settings, tuning
from benchmarks.simulation.setting import History
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
    rates = dict.fromkeys(cases(rules_of("equal"), ["equal", "uniform"], ["library"]), 0.1)
    planned = list(main_settings(rates, {}))

    assert {setting.mix for setting in planned if setting.rule == "fedavg"} == {"equal"}
    assert {setting.mix for setting in planned if setting.rule == "braid"} == {"equal", "uniform"}


def test_every_mix_and_partition_has_a_learning_rate_of_its_own() -> None:
    """What a rule's rate is on one fleet decides nothing on another."""
    rates = {
        Case("braid", "equal", "library"): 0.1,
        Case("braid", "uniform", "library"): 0.2,
        Case("braid", "uniform", "coffee"): 0.4,
    }

    assert {case_of(setting): setting.learning_rate for setting in main_settings(rates, {})} == rates


def test_rates_are_chosen_on_the_text_and_ranks_that_they_are_for() -> None:
    """With texts cut as the compared runs cut them, and with a seed that none of these has."""
    case = Case("weave", "uniform", "coffee")
    tried, compared = tuning(case, 0.1, {}), list(main_settings({case: 0.1}, {}))

    for setting in compared:
        assert msgspec.structs.replace(setting, seed=0, n_written=0, evaluate_every=10) == tried
        assert setting.seed != tried.seed


class Made:
    """A study's runs, as `Fleets` has them."""

    def __init__(self, *histories: History) -> None:
        self.histories = histories


def test_a_report_of_what_has_run_takes_the_rates_that_were_tried() -> None:
    """Whatever grid they were of. Compared runs and those of another fleet decide nothing, nor does a rule that ran
    nowhere."""
    weave, braid = Case("weave", "uniform", "coffee"), Case("braid", "uniform", "coffee")

    def tried(case: Case, rate: float, loss: float) -> History:
        return msgspec.structs.replace(history(rate, [5, loss]), setting=tuning(case, rate, {}))

    wanted_runs = [tried(weave, 0.1, 3), tried(weave, 0.7, 2)]
    compared = [
        msgspec.structs.replace(history(0.9, [5, 1]), setting=setting) for setting in main_settings({weave: 0.9}, {})
    ]
    made = Made(*wanted_runs, *compared, tried(weave._replace(mix="equal"), 0.3, 1))

    rates, tuned = known_choice(made, [weave, braid], {})  # type: ignore[arg-type]  # all that it reads of a study

    assert rates == {weave: 0.7}
    assert tuned == wanted_runs


def test_a_contestant_of_two_parts_is_known_by_its_runs() -> None:
    """The rule by itself and with something beside it are tuned and told apart."""
    rates = dict.fromkeys(cases(rules_of("uniform"), ["uniform"], ["library"]), 0.1)
    planned = list(main_settings(rates, {}))

    assert {contestant_of(setting) for setting in planned} == {case.contestant for case in rates} > set(COMBINED)
    assert {(setting.rule, setting.nested, setting.drift) for setting in planned} >= {
        ("weave", 0, 0.0),
        ("weave", 3, 0.0),
        ("delta", 0, 3.0),
        ("rank-partitioned", 3, 0.0),
    }
