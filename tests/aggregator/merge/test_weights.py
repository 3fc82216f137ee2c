"""Weights of boards: a claim of examples is bounded by the cohort, and bounded the same by every rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from aggregator.merge.defences.defended import defended
from aggregator.merge.rules import RULES, folded
from aggregator.merge.weights import bounded_claims, bounded_weights
from tests.reference.board import work
from tests.reference.rounds import begun, fleet
from wire.limits import MAX_EXAMPLES
from wire.run import Weight

claims = st.integers(1, MAX_EXAMPLES)
cohorts = st.lists(claims, min_size=1, max_size=30)


@given(cohort=cohorts, seed=st.randoms())
def test_the_order_of_boards_does_not_matter(cohort: list[int], seed: st.DataObject) -> None:
    shuffled = list(cohort)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]

    assert sorted(bounded_weights(shuffled, 3.0)) == sorted(bounded_weights(cohort, 3.0))


@given(cohort=cohorts)
def test_nobody_gains_and_whoever_is_no_larger_than_the_middle_stays(cohort: list[int]) -> None:
    """Order is kept, and weights within the bound are as they were."""
    bounded = bounded_weights(cohort, 3.0)

    assert all(0 < after <= before for before, after in zip(cohort, bounded, strict=True))
    in_order = [after for _, after in sorted(zip(cohort, bounded, strict=True))]
    assert in_order == sorted(bounded)
    least = sorted(cohort)[: len(cohort) // 2 + len(cohort) % 2]
    assert sorted(bounded)[: len(least)] == least


@given(n_examples=claims, n_boards=st.integers(1, 20), times=st.floats(1.0, 1e6))
def test_equal_boards_stay_as_they_are(n_examples: int, n_boards: int, times: float) -> None:
    cohort = [float(n_examples)] * n_boards

    assert bounded_weights(cohort, times) == tuple(cohort)
    assert bounded_claims(dict(enumerate_names(cohort)), times) == dict(enumerate_names(cohort))


@given(n_examples=claims)
def test_a_board_alone_counts_as_it_is(n_examples: int) -> None:
    assert bounded_weights([n_examples], 3.0) == (n_examples,)


@given(honest=claims, claimed=claims)
def test_of_two_boards_neither_has_more_than_three_quarters(honest: int, claimed: int) -> None:
    """The median of two would be whatever the larger one claims."""
    bounded = bounded_weights([honest, claimed], 3.0)

    assert max(bounded) <= 0.75 * sum(bounded) * (1 + 1e-12)


@given(honest=st.lists(claims, min_size=2, max_size=20))
def test_one_claim_cannot_move_its_own_bound_far(honest: list[int]) -> None:
    """Whatever it claims, one board counts as three times the largest honest one at most."""
    *others, liar = bounded_weights([*honest, MAX_EXAMPLES], 3.0)

    assert liar <= 3 * max(honest) and sum(others) > 0


def test_zero_is_no_bound() -> None:
    assert bounded_weights([1, MAX_EXAMPLES], 0.0) == (1, MAX_EXAMPLES) and bounded_weights([], 3.0) == ()


def enumerate_names(weights: Sequence[float]) -> list[tuple[str, float]]:
    return [(f"board{number}", weight) for number, weight in enumerate(weights)]


def test_a_defence_bounds_weights_by_itself(weights: tuple[Weight, ...]) -> None:
    """By the run's own number."""
    plain = RULES["weave"]
    state = begun(plain, weights)
    boards = [work(plain, state, board).contribution for board in fleet(plain)]
    boards[1] = replace(boards[1], weight=float(MAX_EXAMPLES))

    for times in (1.0, 3.0, 5.0):
        rule = defended(plain, "norm-clip", 0.2, times)
        filtered = rule.filtered(rule.fold(None, boards[0]))  # type: ignore[attr-defined]
        assert filtered.boards[0].weight == boards[0].weight
        kept = folded(rule, boards)
        largest = max(board.weight for board in rule.filtered(kept).boards)  # type: ignore[attr-defined]
        assert largest == times * 13.5  # the middle of 3, 7, 20 and a million
