"""Whole rounds of a rule in one process: profiles, boards of `tests.reference.board`, the sum, the next version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aggregator.merge.rules import Rule, folded
from aggregator.merge.state import AdapterState, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from tests.reference.board import Board, Trained, work
from wire.checks import basis_rank
from wire.run import Weight

MAX_RANK = 12
AMPLE = MergeSettings(server_rank=64, max_rank=MAX_RANK)
"""More than any sum of the tests has: nothing is truncated."""


def begun(rule: Rule[Any], weights: tuple[Weight, ...], shares: bool = False) -> AdapterState:
    """Version 1, from two profiles."""
    profiles = []
    for seed in (20, 21):
        rng = np.random.default_rng(seed)
        sketches = {w.name: rng.standard_normal((basis_rank(w, MAX_RANK), w.columns)) for w in weights}
        profiles.append(
            Contribution(
                weight=seed,
                sketches={name: sketch.astype(np.float32) for name, sketch in sketches.items()},
                shares={w.name: 1 / len(weights) for w in weights} if shares else {},
            )
        )
    return rule.first_basis(initial_state(weights), folded(rule, profiles), max_rank=MAX_RANK, seed=3)


def closed(
    rule: Rule[Any], state: AdapterState, boards: Sequence[Board], settings: MergeSettings = AMPLE
) -> tuple[AdapterState, list[Trained]]:
    """A whole round: the version after, and what the boards did."""
    trained = [work(rule, state, board) for board in boards]
    return rule.merge(state, folded(rule, [one.contribution for one in trained]), settings), trained


def fleet(rule: Rule[Any], seed: int = 0, sketches: bool = True) -> list[Board]:
    """Four boards of unequal example counts that leave out different weights; of unequal ranks where the rule can, and
    in some rounds, by the seed, of half of them."""
    mixes = [(4, 0, 8), (2, 12, 0), (0, 5, 3), (7, 3, 1)]
    if seed // 10 % 2:
        mixes = [tuple(-(-rank // 2) for rank in ranks) for ranks in mixes]
    if rule.TRAITS.needs_equal_ranks:
        mixes = [tuple(min(rank, 1) * 4 for rank in ranks) for ranks in mixes]
    counts = (3, 50, 7, 20)
    return [
        Board(ranks=ranks, n_examples=n, seed=seed + i, sketches=sketches and i != 2)
        for i, (ranks, n) in enumerate(zip(mixes, counts, strict=True))
    ]


def product(state: AdapterState, name: str) -> np.ndarray:
    """W_g (m, n) in float64."""
    weight = state.weights[name]
    return weight.frozen_b.astype(np.float64) @ weight.frozen_a


def assert_same_model(one: AdapterState, other: AdapterState, rtol: float = 1e-6) -> None:
    for name in one.weights:
        expected = product(one, name)
        assert np.linalg.norm(product(other, name) - expected) <= rtol * max(1.0, np.linalg.norm(expected)), name
