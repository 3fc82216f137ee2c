"""Running sums of products: exact, the same in any order, and no larger for many boards than for few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.products import ProductSum, add, factors
from aggregator.merge.state import Factors

Boards = list[tuple[Factors, float]]


def drawn(m: int, n: int, ranks: list[int], seed: int) -> Boards:
    """A board of each rank with a weight, as they come off the wire: float32."""
    rng = np.random.default_rng(seed)
    return [
        (
            Factors(rng.standard_normal((m, r)).astype(np.float32), rng.standard_normal((r, n)).astype(np.float32)),
            float(rng.integers(1, 1000)),
        )
        for r in ranks
    ]


def summed(boards: Boards) -> ProductSum:
    total = None
    for product, weight in boards:
        total = add(total, product, weight)
    assert total is not None
    return total


def dense(boards: Boards) -> np.ndarray:
    """Σ w·b·a as one would write it on a blackboard."""
    return sum(w * (one.b.astype(np.float64) @ one.a.astype(np.float64)) for one, w in boards)


def held_bytes(total: ProductSum) -> int:
    lists = sum(one.b.nbytes + one.a.nbytes for one in total.addends)
    return lists + (0 if total.dense is None else total.dense.nbytes)


@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.lists(st.integers(0, 12), min_size=1, max_size=20),
    st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_the_sum_is_exact_in_any_order(m: int, n: int, ranks: list[int], seed: int) -> None:
    """Few boards or many, ranks beyond both sides and of zero: the dense sum to rounding (float64's while factors are
    kept, else float32's), as factors no wider than the matrix; and no array of an argument is written."""
    boards = drawn(m, n, ranks, seed)
    for one, _ in boards:
        one.b.flags.writeable = one.a.flags.writeable = False

    total = summed(boards)
    b, a = factors(total)
    back_b, back_a = factors(summed(boards[::-1]))

    exact = dense(boards)
    scale = sum(w * np.linalg.norm(one.b) * np.linalg.norm(one.a) for one, w in boards)
    assert (b.shape, a.shape) == ((m, a.shape[0]), (b.shape[1], n))
    assert b.shape[1] <= min(m, n)
    rounding = 1e-13 if total.dense is None else 1e-7
    np.testing.assert_allclose(b @ a, exact, rtol=0, atol=rounding * scale)
    np.testing.assert_allclose(back_b @ back_a, exact, rtol=0, atol=1e-7 * scale)


@pytest.mark.parametrize(("m", "n"), [(40, 64), (64, 40)])
def test_memory_is_flat_in_the_number_of_boards(m: int, n: int) -> None:
    """However many boards there are, at most 5 bytes an entry are held, and never their messages."""
    message = np.zeros((8, m + n), np.float32)
    total, most = None, 0
    for board in range(300):
        rank = 1 + board % 8
        total = add(total, Factors(message[:rank, :m].T, message[:rank, m:]), 1.0)
        most = max(most, held_bytes(total))
        assert not any(np.shares_memory(message, array) for one in total.addends for array in (one.b, one.a))

    assert most <= 5 * m * n


def test_few_boards_are_kept_as_factors() -> None:
    """While the factors take less than the matrix, nothing is multiplied out, and the sum has the rank of all."""
    boards = drawn(40, 64, [4, 8], seed=1)

    total = summed(boards)

    assert total.dense is None
    assert factors(total)[0].shape == (40, 12)


def test_the_same_updates_give_the_same_bits() -> None:
    """A restart folds the same updates in the same order, and has the same sum."""
    boards = drawn(24, 40, [3, 9, 5, 16, 2, 8], seed=2)

    for one, other in zip(factors(summed(boards)), factors(summed(boards)), strict=True):
        assert one.tobytes() == other.tobytes()


def test_what_does_not_fit_is_refused() -> None:
    """Factors of different ranks, or of another weight."""
    (good, _), (other, _) = *drawn(6, 9, [2], seed=3), *drawn(9, 6, [2], seed=3)

    with pytest.raises(ValueError, match="do not fit"):
        add(None, Factors(good.b, good.a[:1]), 1.0)
    with pytest.raises(ValueError, match="do not fit"):
        add(add(None, good, 1.0), other, 1.0)
