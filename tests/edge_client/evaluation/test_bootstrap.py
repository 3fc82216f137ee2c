"""Bootstrap intervals: they cover as they promise, are those of scipy, and compare pairwise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from edge_client.evaluation.bootstrap import CONFIDENCE, F64, intervals

N_SETS = 300
"""Test sets drawn for the coverage. With a true coverage of 0.95 the share of them has a standard error of 0.013."""


def draw(rng: np.random.Generator, n: int) -> tuple[F64, F64]:
    """Losses of n texts of unequal length, 1.5 nats per token in truth, hard and easy texts among them: (n, 1) each."""
    tokens = rng.integers(2, 40, n).astype(float)
    losses = tokens * rng.gamma(4.0, 1.5 / 4.0, n)
    return losses[:, None], tokens[:, None]


@pytest.mark.slow
def test_intervals_cover_the_true_ratio_as_often_as_they_say() -> None:
    """Of many test sets drawn from one law, about 95 % give an interval that holds the truth."""
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(N_SETS):
        values, weights = draw(rng, 60)
        ((low, high),) = intervals(values, weights, seed=seed)
        covered += low <= 1.5 <= high

    assert CONFIDENCE - 0.04 <= covered / N_SETS <= CONFIDENCE + 0.03


def test_intervals_are_those_of_scipy() -> None:
    """The percentile interval of a ratio of sums, drawn in pairs, up to what other draws change."""
    from scipy import stats  # most of a second, which collecting the tests need not take

    values, weights = draw(np.random.default_rng(2), 80)

    ((low, high),) = intervals(values, weights, seed=3, resamples=20_000)

    theirs = stats.bootstrap(
        (values[:, 0], weights[:, 0]),
        lambda loss, tokens, axis: loss.sum(axis) / tokens.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(4),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.05 * width)
    assert high == pytest.approx(theirs.high, abs=0.05 * width)


def test_what_two_systems_find_hard_in_common_does_not_blur_their_difference() -> None:
    """The interval of a small, steady gain excludes 0, though those of the two systems overlap almost wholly."""
    rng = np.random.default_rng(5)
    hard = rng.gamma(1.0, 3.0, (100, 1))
    better = hard - 0.1 + 0.05 * rng.standard_normal((100, 1))
    ones = np.ones((100, 1))

    (own,), (others,) = intervals(hard, ones, seed=0), intervals(better, ones, seed=0)
    (difference,) = intervals(better - hard, ones, seed=0)

    assert own[0] < others[1] and others[0] < own[1]
    assert difference[1] < 0
    assert difference[1] - difference[0] < 0.1 * (own[1] - own[0])


def test_equal_systems_differ_by_exactly_zero() -> None:
    """No rounding: every resample of a difference that is 0 for each example is 0."""
    values, weights = draw(np.random.default_rng(6), 33)

    assert intervals(values - values, weights, seed=0).tolist() == [[0.0, 0.0]]


def test_a_seed_repeats_and_another_differs() -> None:
    values, weights = draw(np.random.default_rng(7), 20)

    once, again, other = (intervals(values, weights, seed=seed) for seed in (1, 1, 2))

    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_the_rare_and_the_absent() -> None:
    """A column that few examples count for has draws without any, which are left out; one of none has no interval."""
    weights = np.zeros((40, 2))
    weights[0, 0] = 1
    values = 0.25 * weights

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends = intervals(values, weights, seed=0)

    assert ends[0].tolist() == [0.25, 0.25]
    assert np.isnan(ends[1]).all()


def test_one_example_has_no_interval() -> None:
    assert np.isnan(intervals(np.ones((1, 3)), np.ones((1, 3)), seed=0)).all()
