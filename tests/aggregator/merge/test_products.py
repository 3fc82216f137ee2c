"""Running sums of products and of changes: exact, the same in any order, no larger for many boards than for few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.low_rank.matrix_sum import multiplied
from aggregator.merge.product_total import ProductTotal, fold_changes
from aggregator.merge.products import ProductSum, add, compacted, empty, low_rank_sum
from aggregator.merge.rules import RULES, folded
from aggregator.merge.state import Factors
from aggregator.merge.sums import Contribution

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
    total = empty(boards[0][0])
    for product, weight in boards:
        total = added(total, product, weight)
    return total


def added(total: ProductSum, product: Factors, weight: float) -> ProductSum:
    """One more product, as a round does it."""
    after = add(total, product, weight)
    return compacted(after) if after.is_long else after


def dense(boards: Boards) -> np.ndarray:
    """Σ w·b·a as one would write it on a blackboard."""
    return sum(w * (one.b.astype(np.float64) @ one.a.astype(np.float64)) for one, w in boards)


def held_bytes(total: ProductSum) -> int:
    lists = sum(one.b.nbytes + one.a.nbytes for one in total.terms)
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
    kept, else float32's); and no array of an argument is written."""
    boards = drawn(m, n, ranks, seed)
    for one, _ in boards:
        one.b.flags.writeable = one.a.flags.writeable = False

    total = summed(boards)
    found, back = (multiplied(low_rank_sum(one), np.float64) for one in (total, summed(boards[::-1])))

    exact = dense(boards)
    scale = sum(w * np.linalg.norm(one.b) * np.linalg.norm(one.a) for one, w in boards)
    assert found.shape == (m, n)
    rounding = 1e-13 if total.dense is None else 1e-7
    np.testing.assert_allclose(found, exact, rtol=0, atol=rounding * scale)
    np.testing.assert_allclose(back, exact, rtol=0, atol=1e-7 * scale)


@pytest.mark.parametrize(("m", "n"), [(40, 64), (64, 40)])
def test_memory_is_flat_in_the_number_of_boards(m: int, n: int) -> None:
    """However many boards there are, at most 4.5 bytes an entry are held, and never their messages."""
    message = np.zeros((8, m + n), np.float32)
    total, most = empty(Factors(message[:, :m].T, message[:, m:])), 0
    for board in range(300):
        rank = 1 + board % 8
        total = added(total, Factors(message[:rank, :m].T, message[:rank, m:]), 1.0)
        most = max(most, held_bytes(total))
        assert not any(np.shares_memory(message, array) for one in total.terms for array in (one.b, one.a))

    assert most <= 4.5 * m * n


@pytest.mark.parametrize("rule", ["weave", "flexlora", "rank-partitioned"])
def test_one_weight_is_compacted_at_a_time(rule: str) -> None:
    """Folding multiplies nothing out. Each step afterwards does so for one weight, of which alone there are two sums
    then; the others are those from before, and so is the argument."""
    names = [f"decoder.block.{i}.q" for i in range(5)]
    boards = [
        Contribution(weight, dict.fromkeys(names, product), dict.fromkeys(names, start_of(product)))
        for product, weight in drawn(16, 20, [9] * 10, seed=4)
    ]
    total, n_steps = None, 0
    for board in boards:
        total = RULES[rule].fold(total, board)
        before = held_sums(total)
        while (after := total.compacted()) is not total:
            n_steps += 1
            steps = held_sums(after)
            assert len([name for name in names if steps[name] != before[name]]) == 1
            assert held_sums(total) == before
            total, before = after, steps
        assert not any(one.is_long for sums in before.values() for one in sums)

    assert n_steps >= 5


def start_of(product: Factors) -> Factors:
    return Factors(np.zeros_like(product.b), np.ones_like(product.a))


def held_sums(total: Any) -> dict[str, list[ProductSum]]:
    """Every sum of products of a round, by weight; they are equal where they are the same."""
    if hasattr(total, "indices"):
        return {name: [one.product for one in several] for name, several in total.indices.items()}
    changes = {name: [one.products] for name, one in total.changes.items()}
    return {name: [one] for name, one in total.products.items()} | changes


def test_few_boards_are_kept_as_factors() -> None:
    """While the factors take less than the matrix, nothing is multiplied out, and the sum has the rank of all."""
    boards = drawn(40, 64, [4, 8], seed=1)

    total = summed(boards)

    assert total.dense is None
    assert sum(len(one.a) for one in total.terms) == 12


def test_the_same_updates_give_the_same_bits() -> None:
    """A restart folds the same updates in the same order, and has the same sum."""
    boards = drawn(24, 40, [3, 9, 5, 16, 2, 8], seed=2)

    one, other = (multiplied(low_rank_sum(summed(boards)), np.float64) for _ in range(2))
    assert one.tobytes() == other.tobytes()


def test_what_does_not_fit_is_refused() -> None:
    """Factors of different ranks, or of another weight."""
    (good, _), (other, _) = *drawn(6, 9, [2], seed=3), *drawn(9, 6, [2], seed=3)

    with pytest.raises(ValueError, match="do not fit"):
        add(empty(good), Factors(good.b, good.a[:1]), 1.0)
    with pytest.raises(ValueError, match="does not fit"):
        add(empty(good), other, 1.0)


# --- what boards changed ----------------------------------------------------------------------------------------------

RANK = 12


def changed(m: int, n: int, ranks: list[int], seed: int, late: int = 0, other: int = 0) -> list[Contribution]:
    """Boards that began at leading strands of one start and left something else; the first `late` are stale, and began
    at another start, as the next `other` did, which do not say so."""
    rng = np.random.default_rng(seed)
    starts = [drawn(m, n, [RANK], seed + i)[0][0] for i in range(2)]
    boards = []
    for i, r in enumerate(ranks):
        whole = starts[i < late + other]
        start = Factors(whole.b[:, :r], whole.a[:r])
        by, weight = drawn(m, n, [r], seed + 10 + i)[0]
        trains = rng.integers(0, 4)  # neither, B, A, both
        left = Factors(start.b + trains % 2 * by.b, start.a + trains // 2 * by.a)
        boards.append(Contribution(weight, {"w": left}, {"w": start}, staleness=int(i < late)))
    return boards


def all_folded(boards: list[Contribution]) -> ProductTotal:
    total: ProductTotal | None = folded(RULES["weave"], boards)
    assert total is not None
    return total


def mean_change(boards: list[Contribution]) -> np.ndarray:
    """Σ w·(b·a − b₀·a₀) / Σ w as one would write it on a blackboard."""
    both = [(one.weight, part["w"], sign) for one in boards for part, sign in ((one.strands, 1), (one.start, -1))]
    terms = [sign * weight * (f.b.astype(np.float64) @ f.a.astype(np.float64)) for weight, f, sign in both]
    total: np.ndarray = np.sum(terms, axis=0) / sum(one.weight for one in boards)
    return total


def mean(boards: list[Contribution]) -> np.ndarray:
    """The mean change as it is summed, of boards that changed something."""
    return multiplied(all_folded(boards).change("w"), np.float64)


@given(
    st.sampled_from([(20, 30), (30, 20), (14, 90)]),
    st.lists(st.integers(1, RANK), min_size=1, max_size=12),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_changes_are_summed_exactly_in_any_order(
    shape: tuple[int, int], ranks: list[int], late: int, other: int, seed: int
) -> None:
    """Unequal ranks, boards that changed one factor or nothing, stale boards, and boards that began elsewhere: the mean
    is the dense one, to rounding, and no array of an argument is written."""
    boards = changed(*shape, ranks, seed, late, other)
    arrays = [array for one in boards for f in (one.strands["w"], one.start["w"]) for array in (f.b, f.a)]
    before = [array.tobytes() for array in arrays]
    expected = mean_change(boards)

    scale = max(np.linalg.norm(f.b) * np.linalg.norm(f.a) for one in boards for f in (one.strands["w"], one.start["w"]))
    for order in (boards, boards[::-1]):
        summed = all_folded(order).change("w")
        found = multiplied(summed, np.float64) if summed else np.zeros(shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7 * scale)

    assert [array.tobytes() for array in arrays] == before


def test_boards_that_changed_nothing_add_nothing() -> None:
    """Not a bit: there is no sum, alone or beside others; they count in the mean."""
    first, second = changed(20, 30, [4, 8], seed=1)
    idle = Contribution(100.0, first.start, first.start)
    boards = [Contribution(one.weight, drawn_on(one), one.start) for one in (first, second)]

    assert not all_folded([idle]).change("w")
    total = sum(one.weight for one in boards)
    np.testing.assert_allclose(mean([*boards, idle]), mean(boards) * (total / (total + 100)), rtol=1e-12)


def drawn_on(board: Contribution) -> dict[str, Factors]:
    """Another B and A than the board began with."""
    start = board.start["w"]
    return {"w": Factors(start.b + 1, start.a - 1)}


def test_a_round_of_changes_is_flat_in_memory() -> None:
    """However many boards: sums of the largest rank, one start, at most 4.5 bytes an entry beside them, no message."""
    boards = changed(40, 64, [1 + i % RANK for i in range(200)], seed=2)
    messages = [array for one in boards for f in (*one.strands.values(), *one.start.values()) for array in (f.b, f.a)]

    total = all_folded(boards)

    held = total.changes["w"]
    arrays = [held.a, held.start.b, held.start.a]
    assert [array.shape for array in arrays if array is not None] == [(RANK, 64), (40, RANK), (RANK, 64)]
    assert held_bytes(held.products) <= 4.5 * 40 * 64
    assert not any(np.shares_memory(array, message) for array in arrays if array is not None for message in messages)


def test_the_same_changes_give_the_same_bits() -> None:
    """A restart folds the same updates in the same order, and has the same mean."""
    boards = changed(24, 40, [3, 9, 5, 12, 2, 8], seed=3, late=1, other=1)

    assert mean(boards).tobytes() == mean(boards).tobytes()


def test_a_change_of_another_rank_than_its_start_is_refused() -> None:
    """Factors that cannot have begun there."""
    board = changed(20, 30, [4], seed=4)[0]
    start = board.start["w"]
    cut = Contribution(1.0, board.strands, {"w": Factors(start.b[:, :3], start.a[:3])})

    with pytest.raises(ValueError, match="did not start"):
        fold_changes(None, cut)
