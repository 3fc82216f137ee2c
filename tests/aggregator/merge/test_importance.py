"""Scores of the profiles: one ranking of a run's weights, whatever the boards' scales, order or restarts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.contribution import profile_contribution
from aggregator.merge.rules.braid import first_basis, fold, merge
from aggregator.merge.state import AdapterState, WeightState, decode_state, encode_state, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import BasisSum, Contribution
from wire.manifest import manifest_digest
from wire.messages import NamedTensor, Profile
from wire.run import Weight
from wire.tensors import pack

MAX_RANK = 12
WEIGHTS = (
    Weight(name="q", rows=20, columns=30),
    Weight(name="wi", rows=40, columns=16),
    Weight(name="wo", rows=9, columns=5),
)
SCORES = st.lists(st.floats(0, 1e300), min_size=3, max_size=3).filter(any)
COUNTS = st.integers(1, 10**6)


def sketch(weight: Weight, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, weight.rows])
    return rng.standard_normal((min(MAX_RANK, weight.rows, weight.columns), weight.columns)).astype(np.float32)


def board(
    scores: Sequence[float], n_examples: int = 1, seed: int = 0, weights: tuple[Weight, ...] = WEIGHTS
) -> Contribution:
    """A board's profile as the server folds it: random sketches of `weights`, and these scores of them."""
    sketches = tuple(NamedTensor(name=w.name, tensor=pack(sketch(w, seed), "fp32")) for w in weights)
    return profile_contribution(
        Profile(
            protocol=1,
            run_id="run",
            manifest=manifest_digest(WEIGHTS),
            n_examples=n_examples,
            sketches=sketches,
            scores=tuple(scores),
        )
    )


def summed(boards: Sequence[Contribution]) -> BasisSum:
    total = None
    for one in boards:
        total = fold(total, one)
    assert total is not None
    return total


def begun(boards: Sequence[Contribution]) -> AdapterState:
    """Version 1."""
    return first_basis(initial_state(WEIGHTS), summed(boards), max_rank=MAX_RANK, seed=3)


def after_sketches(state: AdapterState, sketches: Mapping[str, np.ndarray]) -> AdapterState:
    """The version after a round in which one board sent these sketches and trained nothing."""
    added = Contribution(weight=7, sketches={n: y.astype(np.float32) for n, y in sketches.items()})
    return merge(state, fold(None, added), MergeSettings(server_rank=4, max_rank=MAX_RANK))


def scores_of(state: AdapterState) -> list[float]:
    scores = [weight.score for weight in state.weights.values()]
    return [score for score in scores if score is not None]


# --- one ranking of many boards ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(SCORES, COUNTS), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_scores_are_the_mean_of_shares_by_examples(boards: list[tuple[list[float], int]]) -> None:
    """Every board's scores count as shares of their sum, however huge or tiny, weighted by its examples."""
    found = scores_of(begun([board(scores, n, seed) for seed, (scores, n) in enumerate(boards)]))

    shares = [np.array(scores) / max(scores) for scores, _ in boards]
    expected = np.average([s / s.sum() for s in shares], axis=0, weights=[n for _, n in boards])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)
    assert sum(found) == pytest.approx(1)


@given(st.lists(st.floats(1e-100, 1e100), min_size=3, max_size=3), st.floats(1e-100, 1e100))
@settings(max_examples=50, deadline=None)
def test_the_scale_of_a_boards_scores_changes_nothing(scores: list[float], factor: float) -> None:
    """A board that multiplies all its scores by a number weighs what it weighed before."""
    other = board([0.5, 0.0, 2.5], 30, 1)

    one = begun([other, board(scores, 10)])
    scaled = begun([other, board([factor * score for score in scores], 10)])

    np.testing.assert_allclose(scores_of(one), scores_of(scaled), rtol=1e-12)


def test_the_order_of_arrival_does_not_matter() -> None:
    """Every order of four boards gives the same scores and values to rounding."""
    rng = np.random.default_rng(2)
    boards = [board((rng.gamma(0.3, size=3) * 10.0**k).tolist(), n, k) for k, n in enumerate((3, 50, 7, 200))]

    first, *others = (begun(list(order)) for order in itertools.permutations(boards))

    for other in others:
        np.testing.assert_allclose(scores_of(other), scores_of(first), rtol=1e-12)
        for name in first.weights:
            np.testing.assert_allclose(other.weights[name].values, first.weights[name].values, rtol=1e-9)


def test_a_board_that_did_not_reach_a_weight_counts_as_zero_there() -> None:
    """As with sketches the mean is over all boards; what no board reached has score 0 and strands worth nothing."""
    some = begun([board([1.0, 3.0], 1, 0, WEIGHTS[:2]), board([1.0], 3, 1, WEIGHTS[:1])])

    assert scores_of(some) == [0.25 * 0.25 + 0.75, 0.25 * 0.75, 0.0]
    assert not some.weights["wo"].values.any()


def test_sums_do_not_grow_with_the_fleet() -> None:
    """A hundred boards leave one number per weight."""
    assert summed([board([1.0, 2.0, 3.0], 5, seed % 3) for seed in range(100)]).shares.keys() == {"q", "wi", "wo"}


# --- what strands are worth ----------------------------------------------------------------------------------------


def test_strands_share_the_score_of_their_weight_by_their_squares() -> None:
    """Value i is score · σ_i² / Σσ²; without scores it is σ_i², on the very same basis."""
    scored, plain = begun([board([1.0, 2.0, 5.0])]), begun([board([])])

    assert scores_of(plain) == []
    for weight, bare, score in zip(scored.weights.values(), plain.weights.values(), (0.125, 0.25, 0.625), strict=True):
        np.testing.assert_array_equal(weight.basis, bare.basis)
        np.testing.assert_allclose(weight.values, score * bare.values / bare.values.sum(), rtol=1e-12)


def test_values_follow_new_sketches_while_the_score_stays() -> None:
    """A round's sketches divide the same score anew; a weight that nobody sketched keeps its values bit for bit."""
    first = begun([board([1.0, 2.0, 5.0])])

    second = after_sketches(first, {"q": sketch(WEIGHTS[0], 9), "wi": 1e6 * sketch(WEIGHTS[1], 9)})
    third = after_sketches(second, {})

    assert scores_of(third) == scores_of(second) == scores_of(first)
    for name in ("q", "wi"):
        assert not np.allclose(second.weights[name].values, first.weights[name].values)
        assert second.weights[name].values.sum() == pytest.approx(first.weights[name].values.sum())
    assert second.weights["wo"].values.tobytes() == first.weights["wo"].values.tobytes()
    assert [state.ranked_at for state in (first, second, third)] == [1, 2, 2]


def test_a_score_on_a_zero_sketch_is_shared_equally() -> None:
    """No strand is known to be better than another, and the weight keeps its worth."""
    state = after_sketches(begun([board([1.0, 2.0, 5.0])]), {"wo": np.zeros((5, 5))})

    np.testing.assert_allclose(state.weights["wo"].values, np.full(5, 0.625 / 5))


@given(SCORES, st.floats(-150, 10), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_values_are_always_what_boards_accept(scores: list[float], exponent: float, seed: int) -> None:
    """Falling, at least 0, never more than the score in sum, whatever the size of scores and sketches."""
    sketches = {w.name: 10.0**exponent * sketch(w, seed) for w in WEIGHTS}

    state = after_sketches(begun([board(scores)]), sketches)

    for weight in state.weights.values():
        assert np.all(np.diff(weight.values) <= 0) and weight.values[-1] >= 0
        assert weight.values.sum() == pytest.approx(weight.score)


# --- restarts ------------------------------------------------------------------------------------------------------


@given(SCORES, st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_restart_changes_nothing(scores: list[float], seed: int) -> None:
    """A version read back from the disk has the same scores and goes on to the same versions, bit for bit."""
    state = begun([board(scores, 3), board([1.0, 0.0, 1.0], 5, 1)])
    again = decode_state(encode_state(state))
    new = {"q": sketch(WEIGHTS[0], seed)}

    assert scores_of(again) == scores_of(state)
    assert encode_state(after_sketches(again, new)) == encode_state(after_sketches(state, new))


@pytest.mark.parametrize("score", [-0.5, float("nan"), float("inf")])
def test_a_score_that_is_none_is_refused(score: float) -> None:
    """Negative or not finite: no state holds it."""
    empty = np.zeros((0, 3), np.float32)
    with pytest.raises(ValueError, match="score"):
        WeightState(frozen_b=np.zeros((4, 0), np.float32), frozen_a=empty, basis=empty, values=np.zeros(0), score=score)


def test_scores_of_unknown_weights_are_refused() -> None:
    """By their name, as sketches are."""
    total = fold(None, Contribution(weight=1, shares={"Q": 1.0}))

    with pytest.raises(ValueError, match="'Q'"):
        first_basis(initial_state(WEIGHTS), total, max_rank=MAX_RANK, seed=1)
