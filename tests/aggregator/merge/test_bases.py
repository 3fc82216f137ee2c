"""Bases and the values of strands under every rule: what boards choose by, and what two rules make of A themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregator.merge.rules import RULES, folded
from aggregator.merge.state import initial_state
from aggregator.merge.sums import Contribution
from tests.reference.board import Board
from tests.reference.rounds import AMPLE, MAX_RANK, begun, closed, fleet, product
from wire.run import Weight

# --- bases of their own ---------------------------------------------------------------------------------------------


def test_ffa_never_changes_its_basis(weights: tuple[Weight, ...]) -> None:
    """Orthonormal random rows from the run's seed and the weight's name, whatever is sketched and trained."""
    rule = RULES["ffa"]
    first = state = begun(rule, weights)
    other = rule.first_basis(initial_state(weights), folded(rule, [Contribution(weight=1)]), max_rank=MAX_RANK, seed=4)

    for seed in range(3):
        state, _ = closed(rule, state, fleet(rule, seed))

    for name, weight in first.weights.items():
        assert state.weights[name].basis.tobytes() == weight.basis.tobytes()
        assert not np.allclose(other.weights[name].basis, weight.basis)
        assert not np.allclose(begun(RULES["braid"], weights).weights[name].basis, weight.basis)
    assert not np.allclose(first.weights["decoder.q"].basis, first.weights["decoder.wi"].basis)


def test_fedsvd_takes_its_basis_from_the_adapter(weights: tuple[Weight, ...]) -> None:
    """The right singular rows of W_g in order, then random ones; a weight that nobody changed keeps its rows."""
    rule = RULES["fedsvd"]
    first = begun(rule, weights)
    state, _ = closed(rule, first, [Board((4, 0, 8), seed=1, sketches=True)])

    for name, rank in (("decoder.q", 4), ("decoder.o", 8)):
        _, _, vt = np.linalg.svd(product(state, name))
        basis = state.weights[name].basis
        np.testing.assert_allclose(np.abs(np.sum(basis[:rank] * vt[:rank], axis=1)), 1, atol=1e-5)
        np.testing.assert_allclose(basis[rank:] @ vt[:rank].T, 0, atol=1e-5)
    assert state.weights["decoder.wi"].basis.tobytes() == first.weights["decoder.wi"].basis.tobytes()


# --- what strands are worth ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_values_strands_alike(name: str, weights: tuple[Weight, ...], shares: bool) -> None:
    """By the same sketches and scores, in version 1 and after a round with new sketches; so boards' choices are the
    same under every rule. A round without sketches keeps them."""
    rule = RULES[name]
    first, default = begun(rule, weights, shares), begun(RULES["braid"], weights, shares)
    boards = fleet(rule, 1)
    second, trained = closed(rule, first, boards)
    third, _ = closed(rule, second, fleet(rule, 2, sketches=False))
    bare = [replace(one.contribution, strands={}, start={}) for one in trained]
    expected = RULES["braid"].merge(default, folded(RULES["braid"], bare), AMPLE)

    for weight in weights:
        one, two = first.weights[weight.name], second.weights[weight.name]
        np.testing.assert_array_equal(one.values, default.weights[weight.name].values)
        np.testing.assert_array_equal(two.values, expected.weights[weight.name].values)
        assert (np.diff(two.values) <= 0).all() and two.values[0] > 0
        assert one.score == two.score == (1 / 3 if shares else None)
        assert third.weights[weight.name].values.tobytes() == two.values.tobytes()
        np.testing.assert_allclose(two.basis @ two.basis.T, np.eye(len(two.basis)), atol=1e-5)
    assert [state.ranked_at for state in (first, second, third)] == [1, 2, 2]
