"""Weights by drift, against dense float64 matrices, and what they make of the merge rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merge.drift import drift, drift_weights, knows_drift
from aggregator.merge.rules import RULES, folded
from aggregator.merge.state import AdapterState
from tests.reference.board import Board, Trained, work
from tests.reference.rounds import AMPLE, begun, closed, fleet, product
from wire.run import Weight

STARTS = [name for name, rule in RULES.items() if rule.TRAITS.has_start]
RANKS = [(1, 2, 3), (0, 4, 1), (7, 12, 8), (0, 0, 2)]


def learned(name: str, weights: tuple[Weight, ...]) -> AdapterState:
    """A version after two rounds."""
    rule, state = RULES[name], begun(RULES[name], weights)
    for round_id in (1, 2):
        state, _ = closed(rule, state, fleet(rule, round_id))
    return state


def trained(name: str, state: AdapterState, download: str = "fp32") -> list[Trained]:
    """Boards of unequal ranks, one of which trains most of the weights not at all."""
    boards = (Board(ranks, 10, seed=i, download=download) for i, ranks in enumerate(RANKS))  # type: ignore[arg-type]
    return [work(RULES[name], state, board) for board in boards]


def left_out(state: AdapterState, board: Trained) -> float:
    """‖W_g − B⁰·A⁰‖² / ‖W_g‖² with every product formed."""
    left = whole = 0.0
    for name in state.weights:
        w = product(state, name)
        start = board.contribution.start.get(name)
        begun_at = 0.0 if start is None else start.b.astype(np.float64) @ start.a.astype(np.float64)
        left += float(np.sum((w - begun_at) ** 2))
        whole += float(np.sum(w**2))
    return left / whole


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("download", ["fp32", "bf16"])
def test_drift_is_what_a_board_was_not_given_to_train(name: str, download: str, weights: tuple[Weight, ...]) -> None:
    """Of every rule whose boards begin at the adapter: unequal ranks, ranks 0, non-square weights."""
    state = learned(name, weights)

    for board in trained(name, state, download):
        found = drift(state, board.contribution, RULES[name].TRAITS)
        assert found == pytest.approx(min(1.0, left_out(state, board)), rel=1e-6, abs=1e-9)


def test_drift_under_leading_strands_is_the_tail_of_singular_values(weights: tuple[Weight, ...]) -> None:
    """Eckart and Young: what FedHL calls the error of truncation."""
    state = learned("weave", weights)
    values = [np.linalg.svd(product(state, name), compute_uv=False) ** 2 for name in state.weights]

    for ranks, board in zip(RANKS, trained("weave", state), strict=True):
        tail = sum(float(s[rank:].sum()) for s, rank in zip(values, ranks, strict=True))
        found = drift(state, board.contribution, RULES["weave"].TRAITS)
        assert found == pytest.approx(tail / sum(float(s.sum()) for s in values), rel=1e-4, abs=1e-6)


def test_drift_on_a_basis_is_the_part_of_the_gradient_beyond_its_rows(weights: tuple[Weight, ...]) -> None:
    state = learned("braid", weights)
    values = [weight.values for weight in state.weights.values()]

    for ranks, board in zip(RANKS, trained("braid", state), strict=True):
        tail = sum(float(v[rank:].sum()) for v, rank in zip(values, ranks, strict=True))
        found = drift(state, board.contribution, RULES["braid"].TRAITS)
        assert found == pytest.approx(tail / sum(float(v.sum()) for v in values), rel=1e-12)


def test_before_anything_is_learnt_no_board_drifts(weights: tuple[Weight, ...]) -> None:
    state = begun(RULES["delta"], weights)

    assert [drift(state, board.contribution, RULES["delta"].TRAITS) for board in trained("delta", state)] == [0.0] * 4


def test_rules_that_say_nothing_of_it() -> None:
    """Each board's own rows, or rows that were drawn: nobody knows what lies beyond."""
    unknown = {name for name, rule in RULES.items() if not knows_drift(rule.TRAITS)}

    assert unknown == {"fresh", "flora", "ffa", "fedsvd"}


boards = st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1)), min_size=1, max_size=8)


@given(boards=boards, strength=st.floats(0, 1000), seed=st.integers(0, 2**32 - 1))
def test_the_shares_are_those_of_least_drift(boards: Sequence[tuple[int, float]], strength: float, seed: int) -> None:
    """Σ p_k²/n_k·(1 + λ·d_k) is smaller than with any other shares of sum 1; no board counts for more than it did."""
    weights = {str(k): float(n) for k, (n, _) in enumerate(boards)}
    drifts = {str(k): d for k, (_, d) in enumerate(boards)}

    found = drift_weights(weights, drifts, strength)

    def bound(shares: np.ndarray) -> float:
        return float(sum(p**2 / n * (1 + strength * d) for p, (n, d) in zip(shares, boards, strict=True)))

    best = np.array(list(found.values())) / sum(found.values())
    other = best + np.random.default_rng(seed).dirichlet(np.ones(len(boards))) - 1 / len(boards)
    assert bound(best) <= bound(other / other.sum()) * (1 + 1e-9)
    assert all(0 < found[name] <= weights[name] for name in weights)


def test_without_strength_or_drifts_weights_stay_bit_for_bit() -> None:
    weights = {"a": 0.1, "b": 7.0}

    assert drift_weights(weights, {"a": 0.5}, 0.0) == weights == drift_weights(weights, {}, 3.0)
    assert drift_weights(weights, {"a": 0.5}, 2.0) == {"a": 0.05, "b": 7.0}


@pytest.mark.parametrize("name", ["delta", "weave", "hetlora", "rank-partitioned", "fed-plora"])
def test_drift_weighs_boards_of_every_kind_of_rule(name: str, weights: tuple[Weight, ...]) -> None:
    """A board that begins at nearly the whole adapter gains beside one that leaves most of it out."""
    state, traits = learned(name, weights), RULES[name].TRAITS
    contributions = [board.contribution for board in trained(name, state)]
    drifts = {str(k): drift(state, each, traits) for k, each in enumerate(contributions)}
    counts_as = drift_weights({str(k): each.weight for k, each in enumerate(contributions)}, drifts, 4.0)

    weighed = [replace(each, weight=counts_as[str(k)]) for k, each in enumerate(contributions)]
    plain, merged = (RULES[name].merge(state, folded(RULES[name], each), AMPLE) for each in (contributions, weighed))

    assert drifts["2"] < 0.1 < drifts["0"] < drifts["3"]
    assert counts_as["2"] / counts_as["3"] > 2
    assert any(not np.allclose(product(plain, w), product(merged, w), rtol=1e-3) for w in state.weights)
