"""Rounds of honest and bad boards, in which all honest ones want to go the same way, for tests of the defences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aggregator.merge.defences.defended import DEFENCES
from aggregator.merge.rules import RULES, Rule, folded
from aggregator.merge.state import AdapterState, Factors, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from tests.reference.board import Board, work
from wire.checks import basis_rank
from wire.run import Weight

MAX_RANK = 12
AMPLE = MergeSettings(server_rank=64, max_rank=MAX_RANK)
"""More than any sum of these tests has: nothing is truncated."""

PAIRS = [(rule, name) for rule in RULES for name in DEFENCES if DEFENCES[name].fits(RULES[rule].TRAITS)]


def profiles(weights: Sequence[Weight], n: int = 3, seed: int = 0) -> list[Contribution]:
    return [
        Contribution(
            weight=10,
            sketches={
                w.name: np.random.default_rng(seed + i)
                .standard_normal((basis_rank(w, MAX_RANK), w.columns))
                .astype(np.float32)
                for w in weights
            },
        )
        for i in range(n)
    ]


def merged(rule: Rule[Any], state: AdapterState, boards: Sequence[Contribution]) -> AdapterState:
    return rule.merge(state, folded(rule, boards), AMPLE)


def begun(rule: Rule[Any], weights: tuple[Weight, ...]) -> AdapterState:
    """Version 3: two honest rounds have made an adapter that boards can begin with."""
    state = rule.first_basis(initial_state(weights), folded(rule, profiles(weights)), max_rank=MAX_RANK, seed=3)
    for seed in (1, 2):
        state = merged(rule, state, [honest(rule, state, 8, seed + i, way(weights, 90)) for i in range(3)])
    return state


def way(weights: Sequence[Weight], seed: int) -> dict[str, np.ndarray]:
    """Where all honest boards want to go: a matrix of rank 3 and norm about 1 per weight."""
    rng = np.random.default_rng(seed)
    sides = {w.name: (w.rows, w.columns) for w in weights}
    return {
        name: rng.standard_normal((m, 3)) @ rng.standard_normal((3, n)) / (3 * m * n) ** 0.5
        for name, (m, n) in sides.items()
    }


def honest(
    rule: Rule[Any], state: AdapterState, rank: int, seed: int, to: dict[str, np.ndarray], noise: float = 0.3
) -> Contribution:
    """A board of one rank: a gradient step of the factors that the round trains, towards `to` and noise of its own."""
    ranks = [min(rank, len(weight.basis)) for weight in state.weights.values()]
    still = work(rule, state, Board(ranks=ranks, seed=seed, size=0.0)).contribution
    rng, strands = np.random.default_rng(seed), {}
    for name, strand in still.strands.items():
        goal = to[name]
        goal = goal + noise * np.linalg.norm(goal) / goal.size**0.5 * rng.standard_normal(goal.shape)
        b = strand.b + (goal @ strand.a.T if still.trains != "a" else 0)
        a = strand.a + (strand.b.T @ goal if still.trains != "b" else 0)
        strands[name] = Factors(b.astype(np.float32), a.astype(np.float32))
    return replace(still, strands=strands)


def attacked(board: Contribution, attack: str, seed: int = 0) -> Contribution:
    """The board with what it changed of its factors turned round, made ten times larger as well, or made noise."""
    rng, strands = np.random.default_rng(seed), {}

    def turned(change: np.ndarray) -> np.ndarray:
        drawn = rng.standard_normal(change.shape) * (3 * np.linalg.norm(change) / change.size**0.5)
        turns: dict[str, np.ndarray] = {"sign-flip": -change, "scaled": -10 * change, "noise": drawn}
        return turns[attack]

    for name, strand in board.strands.items():
        start = board.start.get(name) or Factors(np.zeros_like(strand.b), strand.a)
        b, a = start.b + turned(strand.b - start.b), start.a + turned(strand.a - start.a)
        strands[name] = Factors(b.astype(np.float32), a.astype(np.float32))
    return replace(board, strands=strands)


def fleet(rule: Rule[Any], state: AdapterState, weights: tuple[Weight, ...], seed: int = 0) -> list[Contribution]:
    """Five boards that left and changed different weights, at different ranks where the rule can take them."""
    mixes: list[tuple[int, ...]] = [(4, 0, 8), (2, 12, 0), (0, 5, 3), (7, 3, 1), (12, 12, 8)]
    if rule.TRAITS.needs_equal_ranks:
        mixes = [tuple(min(rank, 1) * 4 for rank in ranks) for ranks in mixes]
    return [work(rule, state, Board(ranks=r, seed=seed + i)).contribution for i, r in enumerate(mixes)]


def adapter(state: AdapterState) -> np.ndarray:
    """All of W_g in one vector, float64."""
    return np.concatenate([(w.frozen_b.astype(np.float64) @ w.frozen_a).ravel() for w in state.weights.values()])


def dense(board: Contribution, weights: Sequence[Weight]) -> np.ndarray:
    """What the board changed, all weights in one vector; zero where it did not train."""
    parts = []
    for w in weights:
        change = np.zeros((w.rows, w.columns))
        if w.name in board.strands:
            end = board.strands[w.name]
            change = end.b.astype(np.float64) @ end.a
            if w.name in board.start:
                change -= board.start[w.name].b.astype(np.float64) @ board.start[w.name].a
        parts.append(change.ravel())
    return np.concatenate(parts)


def distance(one: AdapterState, other: AdapterState, before: AdapterState) -> float:
    """Between two versions, as a part of the way from the one before to the first."""
    return float(np.linalg.norm(adapter(other) - adapter(one)) / np.linalg.norm(adapter(one) - adapter(before)))
