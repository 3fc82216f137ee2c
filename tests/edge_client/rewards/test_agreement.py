"""Agreement with people, against every pair counted."""

from __future__ import annotations

import numpy as np
import pytest

from edge_client.rewards.agreement import Ranked, agreement, area, same_source


def test_area_is_that_of_every_pair() -> None:
    """With ties, which count half."""
    rng = np.random.default_rng(0)
    good, bad = rng.integers(0, 8, 40).astype(float), rng.integers(0, 6, 30).astype(float)

    expected = np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad])

    assert area(good, bad) == pytest.approx(expected, abs=1e-12)


def test_a_constant_is_chance_and_the_majority() -> None:
    is_good = np.arange(100) < 70
    shown = agreement(np.full(100, 0.9), is_good)

    assert (shown.accuracy, shown.majority, shown.auc) == (0.7, 0.7, 0.5)
    assert (shown.auc_low, shown.auc_high) == (0.5, 0.5)


def test_the_interval_holds_the_area() -> None:
    rng = np.random.default_rng(1)
    is_good = rng.random(200) < 0.5
    shown = agreement(1 / (1 + np.exp(-(is_good + rng.standard_normal(200)))), is_good)

    assert 0.5 < shown.auc_low < shown.auc < shown.auc_high < 1


def test_answers_are_ranked_within_their_source() -> None:
    """A model that tells hard sources from easy ones, and answers to one source not at all, ranks none of them."""
    sources = ["easy"] * 4 + ["hard"] * 3
    is_good = np.array([True, True, True, False, True, False, False])
    of_sources = np.array([0.9] * 4 + [0.2] * 3)

    assert area(of_sources[is_good], of_sources[~is_good]) > 0.6
    assert same_source(of_sources, is_good, sources) == Ranked(5, 0.5)
    assert same_source(of_sources + 0.1 * is_good, is_good, sources) == Ranked(5, 1.0)
    assert same_source(of_sources[:3], is_good[:3], sources[:3]) == Ranked(0, 0.5)
