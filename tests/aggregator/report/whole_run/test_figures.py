"""Figures of records that are made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from aggregator.merge.rules import RULES
from aggregator.report.whole_run.anonymous import anonymous
from aggregator.report.whole_run.figures import figures
from aggregator.report.whole_run.usefulness import FIRST_VERSION
from aggregator.store.records import Loss, StoredReport
from tests.aggregator.report.whole_run.conftest import TERMS, device, evaluation, record, round_of, update
from tests.reference.rounds import begun
from wire.run import Weight


def played(**others: Any) -> dict[str, Any]:
    """Two boards, two merged rounds, and a third that came after the first one and answered nothing."""
    return figures(
        record(
            [
                device("ada", bytes_up=10, bytes_down=20, requests=5),
                device("bo", bytes_up=1),
                device("cy", enrolled_at=250),
            ],
            [round_of(1, 110.0, 210.0), round_of(2, 260.0, 300.0)],
            [
                update("ada", 0, 105.0),
                *(update(name, number, at) for name, number, at in (("ada", 1, 150.0), ("bo", 1, 200.0))),
                *(update(name, number, at) for name, number, at in (("ada", 2, 270.0), ("bo", 2, 290.0))),
            ],
            [
                evaluation(
                    "ada", 1, {"loss": 4.0, "train_s": 30.0, "train_tokens_per_s": 10.0, "train_peak_bytes": 90.0}
                ),
                evaluation("ada", 2, {"loss": 3.0, "train_s": 10.0, "train_tokens_per_s": 20.0, "train_joules": 50.0}),
                evaluation("bo", 1, {"loss": 2.0}),
                evaluation("bo", 2, {"loss": 1.0}),
                evaluation(
                    "ada", 3, {"loss": 2.0, "rougeL": 0.5, "base_rougeL": 0.2, "alone_loss": 1.5, "seconds": 5.0}, 320.0
                ),
                StoredReport("ada", "plan", 0, 0, "nf4", {"predicted_peak_bytes": 100.0, "budget_bytes": 150.0}, 100.0),
            ],
            **others,
        )
    )


class TestUsefulness:
    def test_the_version_is_one_that_half_of_the_boards_have_scored(self) -> None:
        """Of two boards that score, one has the newest version: half of them."""
        loss = played()["usefulness"]["loss"]
        assert loss["version"] == 3 and loss["subjects"]["global"]["by_board"] == {"ada": 2.0}

        waiting = figures(
            record(
                [device(name) for name in "abc"],
                reports=[evaluation(name, 1, {"loss": 1.0}) for name in "abc"] + [evaluation("a", 2, {"loss": 0.5})],
            )
        )
        assert waiting["usefulness"]["loss"]["version"] == 1

    def test_gains(self) -> None:
        """Above 0 is better: less loss, more ROUGE. The base's loss is known from the first version."""
        found = played()["usefulness"]
        gains = {(gain["subject"], gain["over"]): gain for gain in found["loss"]["gains"]}
        assert gains["global", "base"]["by_board"] == {"ada": 2.0}
        assert (gains["global", "alone"]["mean"], gains["global", "alone"]["losers"]) == (-0.5, 1)
        assert gains["personal", "global"]["boards"] == 0 and gains["personal", "global"]["mean"] is None
        assert found["rougeL"]["gains"][0]["mean"] == pytest.approx(0.3)
        assert found["loss"]["subjects"]["base"]["by_board"] == {"ada": 4.0, "bo": 2.0}
        assert found["loss"]["subjects"]["personal"]["mean"] is None

    def test_the_base_is_scored_by_itself_where_a_board_does(self) -> None:
        found = figures(
            record([device("a")], reports=[evaluation("a", 1, {"loss": 4.0}), evaluation("a", 5, {"base_loss": 3.5})])
        )
        assert found["usefulness"]["loss"]["subjects"]["base"]["by_board"] == {"a": 3.5}

    def test_the_course_has_a_point_for_each_version(self) -> None:
        course = played()["usefulness"]["loss"]["course"]
        assert [(point["version"], point["mean"], point["worst_tenth"]) for point in course] == [
            (1, 3.0, 4.0),
            (2, 2.0, 3.0),
            (3, 2.0, 2.0),
        ]

    @pytest.mark.parametrize("rule", RULES)
    def test_the_first_version_is_the_base(self, rule: str) -> None:
        """Else what boards say of it were no loss of the base."""
        state = begun(RULES[rule], (Weight(name="decoder.q", rows=48, columns=64),))
        assert state.version == FIRST_VERSION
        assert not any((weight.frozen_b @ weight.frozen_a).any() for weight in state.weights.values())


class TestCosts:
    def test_communication(self) -> None:
        found = played()["communication"]
        assert (found["bytes_up"], found["bytes_down"], found["requests"]) == (11, 20, 5)
        assert (found["bytes_per_merged_round"], found["updates"], found["update_bytes"]) == (15.5, 4, 1000)
        assert found["by_board"]["ada"]["updates"] == 2

    def test_time(self) -> None:
        """100 enrolled, 110 to 210 and 260 to 300 in rounds; from the middle of two answers to the last of them."""
        found = played()["time"]
        assert (found["profiling_s"], found["rounds_s"], found["between_rounds_s"]) == (10.0, 140.0, 50.0)
        assert [row["waiting_s"] for row in found["rounds"]] == [25.0, 10.0]
        ada = found["by_board"]["ada"]
        assert (ada["train_s"], ada["evaluate_s"], ada["whole_s"], ada["other_s"]) == (40.0, 5.0, 220.0, 175.0)
        assert found["by_board"]["cy"]["train_s"] is None

    def test_an_open_round_lasts_until_now(self) -> None:
        found = figures(record([device("a")], [round_of(1, 400.0, None, "open")]))
        assert found["time"]["rounds"][0]["took_s"] == 600.0 and not found["run"]["finished"]

    def test_efficiency(self) -> None:
        """J/token of the rounds whose energy is known: 50 J for 200 tokens."""
        ada = played()["efficiency"]["by_board"]["ada"]
        assert (ada["tokens_per_s"], ada["joules_per_token"], ada["peak_of_predicted"]) == (15.0, 0.25, 0.9)
        assert played()["efficiency"]["by_board"]["bo"]["joules_per_token"] is None


class TestRobustness:
    def test_refused_late_lost_and_missed(self) -> None:
        found = figures(
            record(
                [device("a"), device("b"), device("c", revoked=True), device("d", removed=True)],
                [round_of(1, 110.0, 120.0), round_of(2, 130.0, 140.0), round_of(3, 150.0, 160.0, "abandoned")],
                [
                    update("a", 1, 111.0),
                    update("a", 1, 131.0, counted_in=2, staleness=1),
                    update("b", 2, 132.0, accepted=False, reason="too large"),
                    update("b", 0, 105.0, accepted=False, reason="too large"),
                ],
                [StoredReport("b", "ended", 0, 2, "no memory", {"exit_status": 6.0}, 150.0)],
                [Loss("update of a for round 1", "d", "gone", 1.0)],
            )
        )["robustness"]
        assert (found["accepted"], found["refused"], found["refused_profiles"], found["late"]) == (2, 2, 1, 1)
        assert (found["lost"], found["abandoned_rounds"], found["gave_up"], found["revoked"]) == (1, 1, 1, 1)
        assert found["reasons"] == [{"reason": "too large", "count": 2}]
        assert {name: row["missed"] for name, row in found["by_board"].items()} == {"a": 0, "b": 1, "c": 2}
        assert found["by_board"]["b"]["why"] == "no memory" and found["removed"] == 1


class TestFairness:
    def test_shares_with_and_without(self) -> None:
        """Losses 4 and 2 on version 1, 3 and 1 on version 2; at q = 1 these are their shares."""
        found = played(terms=replace(TERMS, fairness=1.0))["fairness"]
        assert found["rounds"][0]["by_board"]["ada"] == {"plain": 0.5, "fair": pytest.approx(2 / 3)}
        assert found["rounds"][1]["by_board"]["bo"] == {"plain": 0.5, "fair": pytest.approx(1 / 4)}

    def test_off_it_has_nothing_to_tell(self) -> None:
        assert played()["fairness"] == {"q": 0.0, "rounds": [], "by_board": {}}


def test_privacy_is_the_largest_that_a_board_has_spent() -> None:
    spent = [{"privacy_epsilon": 2.0}, {"privacy_epsilon": 3.0, "privacy_delta": 1e-5}]
    found = figures(
        record(
            [device("a"), device("b")],
            reports=[evaluation("a", number, values) for number, values in enumerate(spent, 1)],
        )
    )["privacy"]
    assert (found["epsilon"], found["boards_with_budget"], found["by_board"]["a"]["delta"]) == (3.0, 1, 1e-5)
    assert played()["privacy"]["epsilon"] is None


def test_a_run_of_nobody_has_figures_too() -> None:
    """And they are JSON, without a NaN."""
    for found in (figures(record()), played()):
        assert json.loads(json.dumps(found, allow_nan=False))["format"] == "braid-report-1"


def test_numbers_that_cannot_be_true_are_left_out() -> None:
    found = figures(record([device("a")], reports=[evaluation("a", 1, {"loss": 1e300, "rougeL": -1.0})]))
    assert found["usefulness"]["loss"]["subjects"]["global"]["boards"] == 0


def test_anonymous_reports_have_no_word_of_a_board() -> None:
    """Neither id nor name, nor a sentence that it wrote or that quotes what it sent; the figures are the same."""
    named = record(
        [device("ada"), device("ada-2")],
        [round_of(1, 110.0, 120.0)],
        [update("ada-2", 1, 115.0), update("ada", 1, 116.0, accepted=False, reason="ada's weight is unknown")],
        [
            evaluation("ada", 1, {"loss": 2.0}),
            StoredReport("ada", "ended", 0, 1, "ada fell", {"exit_status": 6.0}, 130.0),
        ],
        [Loss("update of ada-2 for round 1", "d", "gone", 1.0)],
    )
    found = figures(anonymous(named))

    text = json.dumps(found)
    assert "ada" not in text and "secret" not in text
    assert found["boards"] == {"board 1": "board 1", "board 2": "board 2"}
    assert found["robustness"]["losses"] == ["update of board 2 for round 1: gone"]
    assert found["usefulness"]["loss"]["subjects"]["global"]["mean"] == 2.0
    assert figures(named)["robustness"]["refused"] == found["robustness"]["refused"] == 1
