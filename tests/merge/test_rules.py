"""What the server asks of every merge rule that run.toml can name."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from aggregator.merge.rules import RULES, Rule, Total
from aggregator.merge.state import AdapterState, encode_state, initial_state
from aggregator.merge.sums import Contribution
from aggregator.terms import Terms
from wire.checks import basis_rank, check_adapter
from wire.manifest import manifest_digest
from wire.messages import Adapter, Weight

MAX_RANK, SERVER_RANK = 12, 10
RANKS = (4, 0, 8)


@pytest.fixture(params=sorted(RULES))
def rule(request: pytest.FixtureRequest) -> Rule[Any]:
    return RULES[request.param]


def board(weights: tuple[Weight, ...], seed: int) -> Contribution:
    """Random B at RANKS for the weights that have one, and sketches of all."""
    rng = np.random.default_rng(seed)
    b = {w.name: rng.standard_normal((w.rows, rank)) for w, rank in zip(weights, RANKS, strict=True) if rank}
    sketches = {w.name: rng.standard_normal((basis_rank(w, MAX_RANK), w.columns)) for w in weights}
    return Contribution(
        n_examples=seed,
        b={name: array.astype(np.float32) for name, array in b.items()},
        sketches={name: array.astype(np.float32) for name, array in sketches.items()},
    )


def folded(rule: Rule[Any], boards: list[Contribution]) -> Total:
    total: Total | None = None
    for added in boards:
        total = rule.fold(total, added)
    assert total is not None
    return total


def begun(rule: Rule[Any], weights: tuple[Weight, ...]) -> AdapterState:
    """Version 1."""
    profiles = [Contribution(n_examples=1, b={}, sketches=board(weights, seed).sketches) for seed in (20, 21)]
    return rule.first_basis(initial_state(weights), folded(rule, profiles), max_rank=MAX_RANK, seed=3)


def merged(rule: Rule[Any], state: AdapterState, boards: list[Contribution]) -> AdapterState:
    return rule.merge(state, folded(rule, boards), server_rank=SERVER_RANK, max_rank=MAX_RANK, eta=1.0)


def test_versions_follow_each_other(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """The profiles make version 1 and each round the next one, of the same weights in the same order."""
    state = begun(rule, weights)
    assert state.version == 1

    for version in (2, 3):
        state = merged(rule, state, [board(weights, seed) for seed in (1, 2, 3)])
        assert state.version == version
        assert list(state.weights) == [w.name for w in weights]


def test_a_total_counts_boards(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Quorums are counted by it."""
    assert folded(rule, [board(weights, seed) for seed in (1, 2, 3)]).n_updates == 3


def test_boards_accept_what_they_are_sent(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """What a rule cuts passes the check that a board makes of its download, before and after a round."""
    manifest, state = manifest_digest(weights), begun(rule, weights)
    terms = Terms("run", weights, manifest, MAX_RANK, SERVER_RANK, "sketch", rule)

    for one in (state, merged(rule, state, [board(weights, 1)])):
        parts = rule.cut(one, RANKS, "fp32")
        sent = Adapter(protocol=1, run_id="run", version=one.version, manifest=manifest, parts=parts)
        check_adapter(sent, terms, RANKS, version=one.version)


def test_a_restart_gives_the_same_bits(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """The same updates folded again in the same order make the same version, bit for bit."""
    boards = [board(weights, seed) for seed in (1, 2, 3)]

    one, again = (merged(rule, begun(rule, weights), boards) for _ in range(2))

    assert encode_state(one) == encode_state(again)


def test_every_rule_keeps_the_scores_of_the_profiles(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Each weight's strands are worth its score together, in version 1 and after a round with new sketches."""
    shares = {w.name: share for w, share in zip(weights, (0.5, 0.25, 0.25), strict=True)}
    profile = Contribution(n_examples=1, b={}, sketches=board(weights, 20).sketches, shares=shares)
    first = rule.first_basis(initial_state(weights), folded(rule, [profile]), max_rank=MAX_RANK, seed=3)
    second = merged(rule, first, [board(weights, 1)])

    for state in (first, second):
        assert {name: weight.score for name, weight in state.weights.items()} == shares
        for name, weight in state.weights.items():
            assert weight.values.sum() == pytest.approx(shares[name])
    assert (first.ranked_at, second.ranked_at) == (1, 2)


def test_the_order_of_arrival_does_not_matter(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Every order of three boards gives the same adapter to rounding."""
    boards, state = [board(weights, seed) for seed in (1, 2, 3)], begun(rule, weights)

    first, *others = (merged(rule, state, list(order)) for order in itertools.permutations(boards))

    for name, weight in first.weights.items():
        expected = weight.context_b @ weight.context_a
        for other in others:
            found = other.weights[name].context_b @ other.weights[name].context_a
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(initial=1.0))
