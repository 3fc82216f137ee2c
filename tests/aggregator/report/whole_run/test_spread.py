"""Figures of a number over boards, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.report.whole_run.spread import jain, spread


def test_by_hand() -> None:
    """Eleven boards: the worst tenth is two of them, whichever end is worse."""
    values = [float(n) for n in range(1, 12)]

    loss, score = spread(values, is_lower_better=True), spread(values, is_lower_better=False)

    assert (loss["mean"], loss["worst_tenth"], loss["worst"], loss["best"]) == (6.0, 10.5, 11.0, 1.0)
    assert (score["worst_tenth"], score["worst"], score["best"], score["boards"]) == (1.5, 1.0, 11.0, 11)
    assert loss["deviation"] == pytest.approx(10**0.5)
    assert loss["jain"] == pytest.approx(66**2 / (11 * 506))


def test_nobody_and_one() -> None:
    assert spread([], is_lower_better=True)["mean"] is None and spread([], is_lower_better=True)["boards"] == 0
    one = spread([2.0], is_lower_better=True)
    assert (one["mean"], one["worst_tenth"], one["deviation"], one["jain"]) == (2.0, 2.0, 0.0, 1.0)
    assert jain([0.0, 0.0]) is None and jain([0.0, 0.0, 0.0, 5.0]) == 0.25


@given(values=st.lists(st.floats(0, 1e15), min_size=1, max_size=20))
def test_jain_lies_between_one_for_all_and_one(values: list[float]) -> None:
    """Whatever boards claim."""
    found = jain(values)
    assert found is None or 1 / len(values) - 1e-9 <= found <= 1 + 1e-9
