"""Fed-PLoRA's modules over many rounds: which ones are trained, and what becomes of the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aggregator.merge.rules import fed_plora
from aggregator.merge.state import AdapterState
from tests.reference.board import Board
from tests.reference.rounds import begun, closed, product
from wire.run import Weight

NAME = "decoder.wi"


def after_a_round(weights: tuple[Weight, ...]) -> AdapterState:
    """A version with seven modules of every weight."""
    state, _ = closed(fed_plora, begun(fed_plora, weights), [Board((7, 7, 7), seed=1), Board((2, 2, 2), seed=2)])
    return state


def moved(before: AdapterState, after: AdapterState) -> set[int]:
    """The modules of one weight that are not the same bits any more."""
    one, other = before.weights[NAME], after.weights[NAME]
    n_modules = one.frozen_a.shape[0]
    assert other.frozen_a.shape[0] == n_modules
    return {
        j
        for j in range(n_modules)
        if one.frozen_b[:, j].tobytes() != other.frozen_b[:, j].tobytes()
        or one.frozen_a[j].tobytes() != other.frozen_a[j].tobytes()
    }


def test_small_boards_come_to_every_module(weights: tuple[Weight, ...]) -> None:
    """Two of seven in every round, not the same two; those that nobody trained keep every bit. `weave` would train the
    same two leading strands for ever."""
    state, seen = after_a_round(weights), []

    for round_id in range(16):
        after, _ = closed(fed_plora, state, [Board((2, 2, 2), seed=100 + round_id)])
        seen.append(moved(state, after))
        state = after

    assert all(len(trained) == 2 for trained in seen)
    assert set().union(*seen) == set(range(7))


def test_what_small_boards_train_large_ones_train_too(weights: tuple[Weight, ...]) -> None:
    """Modules nest over ranks, so that a board's start is the leading part of a larger board's."""
    state = after_a_round(weights)

    seen = [moved(state, closed(fed_plora, state, [Board((r, r, r), seed=r)])[0]) for r in (1, 3, 5)]

    assert [len(trained) for trained in seen] == [1, 3, 5]
    assert seen[0] < seen[1] < seen[2]


def test_weights_choose_each_for_itself(weights: tuple[Weight, ...]) -> None:
    """And of one version always the same, whoever asks: a restart reads the updates again."""
    state = after_a_round(weights)

    orders = {name: tuple(fed_plora._order(state, name)) for name in state.weights}

    assert len(set(orders.values())) > 1
    assert orders == {name: tuple(fed_plora._order(replace(state), name)) for name in state.weights}


def test_modules_that_the_adapter_lacks_come_last(weights: tuple[Weight, ...]) -> None:
    """A board of more strands than there are modules adds to them; the model is its own, alone in its round."""
    state = after_a_round(weights)

    after, (board,) = closed(fed_plora, state, [Board((9, 9, 8), seed=5)])

    assert after.weights[NAME].frozen_a.shape[0] == 9
    np.testing.assert_allclose(product(after, NAME), board.end[NAME], atol=1e-5)


def test_the_mean_is_of_each_module_over_the_boards_that_trained_it(weights: tuple[Weight, ...]) -> None:
    """Module by module in float64: what one board alone trained is that board's, whatever the others count."""
    state = after_a_round(weights)

    after, (small, large) = closed(fed_plora, state, [Board((2, 2, 2), 90, seed=6), Board((5, 5, 5), 10, seed=7)])

    order, held = fed_plora._order(state, NAME), after.weights[NAME]
    few, many = small.contribution.strands[NAME], large.contribution.strands[NAME]
    for i, j in enumerate(order[:5]):
        b, a = many.b[:, i].astype(np.float64), many.a[i].astype(np.float64)
        if i < 2:
            b, a = 0.9 * few.b[:, i] + 0.1 * b, 0.9 * few.a[i] + 0.1 * a
        np.testing.assert_allclose(held.frozen_b[:, j], b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(held.frozen_a[j], a, rtol=1e-5, atol=1e-6)
