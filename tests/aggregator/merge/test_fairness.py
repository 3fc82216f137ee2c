"""Weights by loss (q-FFL), against the definition in float64, and in whole rounds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merge.fairness import LEAST_LOSS, fair_weights
from aggregator.merge.weights import bounded_claims

boards = st.dictionaries(
    st.sampled_from("abcdefghij"), st.tuples(st.integers(1, 1_000_000), st.floats(0.0, 1e15)), min_size=1
)


@given(boards=boards, q=st.floats(0.0, 10.0))
def test_a_mean_by_these_weights_is_the_papers(boards: dict[str, tuple[int, float]], q: float) -> None:
    """Σ n·F^q·x / Σ n·F^q, in logarithms of float64, as the powers themselves leave its range."""
    weights = {name: float(n) for name, (n, _) in boards.items()}
    losses = {name: loss for name, (_, loss) in boards.items()}
    before = dict(weights), dict(losses)

    found = np.array(list(fair_weights(weights, losses, q).values()))

    logs = np.log([n for n, _ in boards.values()]) + q * np.log(np.maximum([f for _, f in boards.values()], LEAST_LOSS))
    wanted = np.exp(logs - logs.max())
    np.testing.assert_allclose(found / found.sum(), wanted / wanted.sum(), rtol=1e-9, atol=1e-300)
    assert (found > 0).all() and np.isfinite(found).all() and (weights, losses) == before


def test_by_hand() -> None:
    """Losses of 1 and 3, equal examples: at q = 1 one quarter and three quarters, at q = 2 a tenth and nine."""
    assert fair_weights({"a": 10, "b": 10}, {"a": 1.0, "b": 3.0}, 1) == {"a": 5.0, "b": 15.0}
    assert fair_weights({"a": 10, "b": 10}, {"a": 1.0, "b": 3.0}, 2) == {"a": 2.5, "b": 22.5}


def test_without_q_or_losses_weights_stay_bit_for_bit() -> None:
    weights = {"a": 0.1, "b": 7.0}

    assert fair_weights(weights, {"a": 5.0}, 0.0) == weights == fair_weights(weights, {}, 2.0)
    assert fair_weights(weights, {"other": 5.0}, 2.0) == weights


def test_a_board_that_says_nothing_of_its_loss_keeps_its_weight() -> None:
    """Silence neither gains nor loses."""
    assert fair_weights({"a": 1, "b": 1, "c": 8}, {"a": 1.0, "b": 3.0}, 3)["c"] == 8


def test_a_board_that_lies_about_its_loss_counts_as_three_at_most() -> None:
    """The bound on weights comes after."""
    weights = dict.fromkeys("abcde", 10.0)
    found = bounded_claims(fair_weights(weights, {**dict.fromkeys("abcd", 1.0), "e": 1e15}, 5), 3.0)

    assert found["e"] / found["a"] == 3.0 and len({found[name] for name in "abcd"}) == 1
