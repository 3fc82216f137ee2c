"""The server's step: every optimiser against dense matrices, and the same bits on any number of threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from aggregator.merge.bases import random_basis
from aggregator.merge.low_rank import matrix_sum
from aggregator.merge.low_rank.approximation import truncate
from aggregator.merge.low_rank.matrix_sum import LowRankSum, Product, multiplied
from aggregator.merge.optimisers import OPTIMISERS, Optimiser
from aggregator.merge.state import AdapterState, WeightState, encode_state, initial_state
from aggregator.merge.step import MergeSettings, for_each_weight, stepped
from tests.reference.braid import best_approximation
from wire.run import Weight

ROUNDS = 12
SHAPES = [(20, 33), (33, 20)]


class Dense:
    """What an optimiser does, written with dense float64 matrices. Moments are cut to the rank of the adapter."""

    def __init__(self, m: int, n: int, optimiser: Optimiser, eta: float, rank: int) -> None:
        self.w, self.first, self.second = np.zeros((m, n)), np.zeros((m, n)), np.full((m, n), optimiser.tau**2)
        self.optimiser, self.eta, self.rank = optimiser, eta, rank

    def step(self, change: np.ndarray) -> None:
        one = self.optimiser
        if one.squares:
            self.first = one.beta * self.first + (1 - one.beta) * change
            if one.squares == "adam":
                self.second = one.beta2 * self.second + (1 - one.beta2) * change**2
            else:
                self.second = self.second - (1 - one.beta2) * change**2 * np.sign(self.second - change**2)
            step = self.first / (np.sqrt(self.second) + one.tau) - one.decay * self.w
        else:
            self.first = one.beta * self.first + change
            step = change + one.beta * self.first if one.nesterov else self.first
        self.w = best_approximation(self.w + self.eta * step, self.rank)
        self.first = best_approximation(self.first, self.rank)


def fresh(m: int, n: int) -> WeightState:
    return initial_state([Weight(name="w", rows=m, columns=n)]).weights["w"]


def product(weight: WeightState) -> np.ndarray:
    return weight.frozen_b.astype(np.float64) @ weight.frozen_a


def changes(m: int, n: int, rank: int, seed: int) -> list[LowRankSum]:
    """A round's mean change each, on the same rows for two rounds, in the last two partly dense; in round 5 nobody
    trained the weight."""
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((rank, n)) for _ in range(ROUNDS)]
    made: list[LowRankSum] = [
        (Product(1e-2, rng.standard_normal((m, rank)), rows[i - i % 2].astype(np.float64)),) for i in range(ROUNDS)
    ]
    made[5] = ()
    return [
        *made[:-2],
        *((*one, matrix_sum.Dense(1e-3, rng.standard_normal((m, n), np.float32))) for one in made[-2:]),
    ]


@pytest.mark.parametrize("rank", [4, 20])
@pytest.mark.parametrize(("m", "n"), SHAPES)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_is_its_formula(name: str, m: int, n: int, rank: int) -> None:
    """Over many rounds, cut to a small rank and to none: the dense matrices of the formula, to float32's rounding."""
    optimiser = OPTIMISERS[name]
    settings = MergeSettings(server_rank=rank, max_rank=3, eta=optimiser.eta, optimiser=optimiser)
    reference, weight = Dense(m, n, optimiser, optimiser.eta, rank), fresh(m, n)

    for change in changes(m, n, 3, seed=1):
        reference.step(multiplied(change, np.float64) if change else np.zeros((m, n)))
        weight = stepped(weight, change, settings)

        np.testing.assert_allclose(product(weight), reference.w, atol=3e-5 * np.abs(reference.w).max())
        assert weight.frozen_a.shape[0] <= rank
        assert weight.moments is None or len(weight.moments.first.a) <= rank
    assert (weight.moments is None) == (name == "none")
    assert (weight.moments is not None and weight.moments.second is not None) == bool(optimiser.squares)


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_no_optimiser_is_the_truncated_sum_bit_for_bit(m: int, n: int) -> None:
    """`none` truncates context + η·change, and remembers nothing."""
    settings = MergeSettings(server_rank=4, max_rank=3, eta=0.5)
    weight = fresh(m, n)
    for change in changes(m, n, 3, seed=2):
        if len(change) != 1 or not isinstance(change[0], Product):
            continue
        expected = truncate(
            np.concatenate([weight.frozen_b, change[0].b * (0.5 * change[0].weight)], axis=1),
            np.concatenate([weight.frozen_a, change[0].a]),
            4,
        )

        weight = stepped(weight, change, settings)

        assert weight.frozen_b.tobytes() == expected[0].tobytes()
        assert weight.frozen_a.tobytes() == expected[1].tobytes()
        assert weight.moments is None


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_weight_that_nobody_ever_changed_keeps_every_bit(name: str) -> None:
    """Rounds without a change, or with one of zero, give back the very weight."""
    settings = MergeSettings(server_rank=4, max_rank=3, optimiser=OPTIMISERS[name])
    weight = fresh(7, 9)

    assert stepped(weight, (), settings) is weight
    assert stepped(weight, (Product(1.0, np.zeros((7, 2)), np.ones((2, 9))),), settings) is weight


@pytest.mark.parametrize("name", ["momentum", "nesterov", "fedadam", "fedyogi", "fedadamw"])
def test_moments_fade_where_nobody_trains(name: str) -> None:
    """A weight that was trained once goes on in the same direction, less each round."""
    optimiser = OPTIMISERS[name]
    settings = MergeSettings(server_rank=4, max_rank=3, eta=1e-3, optimiser=optimiser)
    rng = np.random.default_rng(4)
    weight = stepped(fresh(7, 9), (Product(1.0, rng.standard_normal((7, 2)), rng.standard_normal((2, 9))),), settings)
    norms = []
    for _ in range(30):
        after = stepped(weight, (), settings)
        norms.append(np.linalg.norm(product(after) - (1 - 1e-3 * optimiser.decay) * product(weight)))
        weight = after

    assert norms[0] > 0
    assert norms[-1] < 0.1 * norms[0]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_no_argument_is_changed(name: str) -> None:
    """Neither the weight nor the change, whose arrays may not even be written."""
    settings = MergeSettings(server_rank=4, max_rank=3, optimiser=OPTIMISERS[name])
    weight = fresh(20, 33)
    for change in changes(20, 33, 3, seed=5):
        for one in change:
            for array in (one.b, one.a) if isinstance(one, Product) else (one.w,):
                array.flags.writeable = False
        weight = stepped(weight, change, settings)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_change_of_another_shape_is_refused(name: str) -> None:
    """Transposed, too wide, or of two ranks: ValueError."""
    settings = MergeSettings(server_rank=4, max_rank=3, optimiser=OPTIMISERS[name])
    for b, a in (
        (np.ones((9, 2)), np.ones((2, 7))),
        (np.ones((7, 2)), np.ones((2, 8))),
        (np.ones((7, 2)), np.ones((3, 9))),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            stepped(fresh(7, 9), (Product(1.0, b, a),), settings)


# --- every weight -----------------------------------------------------------------------------------------------------


def state_of(n_weights: int) -> AdapterState:
    shapes = [(48 + 8 * i, 200 - 8 * i) for i in range(n_weights)]
    return random_basis(
        initial_state([Weight(name=f"w{i}", rows=m, columns=n) for i, (m, n) in enumerate(shapes)]), max_rank=6, seed=3
    )


@pytest.mark.parametrize("name", ["none", "nesterov", "fedadam"])
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    """One thread or four: the same bytes, in the state's order; BLAS has its threads back afterwards."""
    state = state_of(9)
    settings = MergeSettings(server_rank=16, max_rank=6, optimiser=OPTIMISERS[name])
    rng = np.random.default_rng(6)
    change = {name: (Product(1.0, rng.standard_normal((w.shape[0], 6)), w.basis),) for name, w in state.weights.items()}
    blas = ThreadpoolController().select(user_api="blas")

    found = set()
    for n_threads in (1, 4):
        with blas.limit(limits=n_threads):
            made = for_each_weight(state, lambda name, weight: stepped(weight, change[name], settings))
            assert {library["num_threads"] for library in blas.info()} == {n_threads}
        assert list(made) == list(state.weights)
        found.add(encode_state(replace(state, weights=made)))

    assert len(found) == 1


def test_an_error_in_one_weight_is_the_callers() -> None:
    """What `make` raises comes out, whichever thread it ran on."""

    def make(name: str, weight: WeightState) -> WeightState:
        if name == "w5":
            raise ValueError("w5 is bad")
        return weight

    with pytest.raises(ValueError, match="w5 is bad"):
        for_each_weight(state_of(9), make)
