"""Does the rule find the common optimum? One weight, ten boards, quadratics with noise; eight boards hold rank 4 only.

Board k minimises ½‖W − W_k‖² with W_k = W* + its own deviation; the answer sought is the mean of the W_k. A toy, not a
proof for language models: it shows that the real `merge`, fed round after round, does what the design claims of it.
"""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.merge.bases import random_basis
from aggregator.merge.rules.braid import fold, merge
from aggregator.merge.state import AdapterState, Factors, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import BasisSum, Contribution
from tests.reference import flexlora
from wire.projection import projection
from wire.run import Weight

M, N, SERVER_RANK, MAX_RANK = 48, 64, 32, 24
RANKS = [4] * 8 + [8, 24]
ROUNDS, STEPS, LEARNING_RATE, NOISE = 40, 20, 0.05, 0.05


def targets(heterogeneity: float, rng: np.random.Generator) -> np.ndarray:
    """(boards, M, N): a common matrix of falling singular values plus a deviation of each board's own."""
    u, v = (np.linalg.qr(rng.standard_normal((side, M)))[0] for side in (M, N))
    star = (u * (3 * 0.85 ** np.arange(M))) @ v.T
    return star + 0.1 * heterogeneity * rng.standard_normal((len(RANKS), M, N))


def noisy(local: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the boards' minibatches of one round show them of their own target."""
    return local + NOISE * rng.standard_normal(local.shape)


def board_round(state: AdapterState, rank: int, target: np.ndarray, seed: int) -> Contribution:
    """A board: B from zero on the leading basis rows over the frozen context, then a sketch of what is left."""
    weight = state.weights["w"]
    basis, context = weight.basis[:rank].astype(np.float64), product(state)
    b = np.zeros((M, rank))
    for _ in range(STEPS):
        b = b - LEARNING_RATE * (b @ basis + context - target) @ basis.T
    sketch = projection(seed, "w", MAX_RANK, M) @ (context + b @ basis - target)
    strands = {"w": Factors(b.astype(np.float32), weight.basis[:rank])}
    return Contribution(weight=8, strands=strands, sketches={"w": sketch.astype(np.float32)})


def product(state: AdapterState) -> np.ndarray:
    return state.weights["w"].frozen_b.astype(np.float64) @ state.weights["w"].frozen_a


def distance(w: np.ndarray, local: np.ndarray) -> float:
    goal = local.mean(axis=0)
    return float(np.linalg.norm(w - goal) / np.linalg.norm(goal))


def braid_distance(heterogeneity: float, seed: int) -> float:
    """Relative distance to the optimum after ROUNDS of the default rule, from a random first basis."""
    rng = np.random.default_rng(seed)
    local = targets(heterogeneity, rng)
    state = random_basis(initial_state([Weight(name="w", rows=M, columns=N)]), max_rank=MAX_RANK, seed=seed)
    for round_id in range(ROUNDS):
        total: BasisSum | None = None
        for rank, target in zip(RANKS, noisy(local, rng), strict=True):
            total = fold(total, board_round(state, rank, target, round_id))
        assert total is not None
        state = merge(state, total, MergeSettings(server_rank=SERVER_RANK, max_rank=MAX_RANK))
    return distance(product(state), local)


def flexlora_distance(heterogeneity: float, seed: int) -> float:
    """The same for FlexLoRA, whose boards train both factors."""
    rng = np.random.default_rng(seed)
    local = targets(heterogeneity, rng)
    w = np.zeros((M, N))
    for _ in range(ROUNDS):
        boards = []
        for rank, target in zip(RANKS, noisy(local, rng), strict=True):
            b, a = flexlora.sent(w, rank, rng)
            for _ in range(STEPS):
                error = b @ a - target
                b, a = b - LEARNING_RATE * error @ a.T, a - LEARNING_RATE * b.T @ error
            boards.append((1 / len(RANKS), b, a))
        w = flexlora.merged(boards)
    return distance(w, local)


@pytest.mark.slow
@pytest.mark.parametrize(("heterogeneity", "most"), [(0.3, 0.15), (1.0, 0.27)])
def test_small_boards_still_find_the_optimum(heterogeneity: float, most: float) -> None:
    """After 40 rounds the fleet is near the common optimum, and less than half as far from it as FlexLoRA."""
    braid = braid_distance(heterogeneity, seed=0)
    flex = flexlora_distance(heterogeneity, seed=0)

    print(f"heterogeneity {heterogeneity}: braid {braid:.3f}, flexlora {flex:.3f}")
    assert braid <= most
    assert braid < 0.5 * flex
