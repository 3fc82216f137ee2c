"""What the server asks of every merge rule that run.toml can name: against dense references, and whatever comes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from aggregator.merge.rules import RULES, Rule, folded
from aggregator.merge.state import Factors, decode_state, encode_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from tests.reference.board import Board, Trained, manifest_of, work
from tests.reference.braid import best_approximation
from tests.reference.rounds import AMPLE, MAX_RANK, assert_same_model, begun, closed, fleet, product
from tests.reference.rules import MERGED, Held, Sent
from wire.run import Weight

EXACT = {"braid", "weave", "fresh", "delta", "flexlora", "flora", "rank-partitioned", "ffa", "fedsvd", "rolora"}
"""With equal ranks the next model is the weighted mean of the boards' models."""


@pytest.fixture(params=RULES)
def name(request: pytest.FixtureRequest) -> str:
    """Every rule's name in turn."""
    return str(request.param)


@pytest.fixture
def rule(name: str) -> Rule[Any]:
    return RULES[name]


def sent(name: str, boards: Sequence[Trained]) -> list[Sent]:
    """The boards that trained a weight, as the dense references read them."""
    result = []
    for board in boards:
        added = board.contribution
        if name in added.strands:
            end = added.strands[name]
            start = added.start.get(name) or Factors(np.zeros_like(end.b), end.a)
            arrays = (end.b, end.a, start.b, start.a)
            result.append(Sent(added.weight, *(array.astype(np.float64) for array in arrays)))
    return result


# --- the mathematics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server_rank", [10, 64])
def test_five_rounds_equal_the_dense_reference(
    name: str, rule: Rule[Any], weights: tuple[Weight, ...], server_rank: int
) -> None:
    """Unequal ranks, boards that train different weights, non-square shapes, with and without truncation."""
    settings = MergeSettings(server_rank=server_rank, max_rank=MAX_RANK)
    state = begun(rule, weights)

    for round_id in range(5):
        before = state
        state, boards = closed(rule, before, fleet(rule, 10 * round_id), settings)

        total = sum(board.contribution.weight for board in boards)
        for weight in weights:
            context = before.weights[weight.name]
            held = Held(
                context.frozen_b.astype(np.float64),
                context.frozen_a.astype(np.float64),
                rule.TRAITS.trains(before.version),
            )
            dense = best_approximation(MERGED[name](held, sent(weight.name, boards), total), server_rank)
            np.testing.assert_allclose(product(state, weight.name), dense, atol=3e-6 * np.linalg.norm(dense))


def test_equal_ranks_give_the_mean_of_the_boards_models(
    name: str, rule: Rule[Any], weights: tuple[Weight, ...]
) -> None:
    """For the rules that are exact, round after round, up to the truncation; the others are off by more than 1 %."""
    rank = 4
    state, off = begun(rule, weights), 0.0

    for round_id in range(4):
        boards = [Board((rank, rank, rank), n, seed=10 * round_id + n) for n in (3, 50, 7, 20)]
        state, trained = closed(rule, state, boards, MergeSettings(server_rank=rank, max_rank=MAX_RANK))
        for weight in weights:
            mean = sum(one.end[weight.name] * one.contribution.weight for one in trained) / 80
            expected = best_approximation(np.asarray(mean), rank)
            distance = np.linalg.norm(product(state, weight.name) - expected) / np.linalg.norm(expected)
            off = max(off, float(distance))

    print(f"{name}: off by {off:.2g}")
    assert off < 1e-5 if name in EXACT else off > 0.01


def test_a_single_board_gives_its_own_model(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Whatever its example count, the global adapter becomes the board's, round after round."""
    state = begun(rule, weights)

    for round_id, n in enumerate((1, 7, 200)):
        state, (board,) = closed(rule, state, [Board((4, 4, 4), n, seed=round_id)], AMPLE)
        for weight in weights:
            np.testing.assert_allclose(product(state, weight.name), board.end[weight.name], atol=1e-5)


def test_factors_are_kept_where_factors_are_averaged(weights: tuple[Weight, ...]) -> None:
    """Boards of one weight and rank that trained from B = 0: the context is the mean of their B, and of their A, as it
    is. A pair wider than server_rank, or another step than the mean, gives ordered factors of the same product."""
    for name, rule in RULES.items():
        if rule.TRAITS.space == "factors":
            state = begun(rule, weights)
            boards = [Board((4, 4, 4), seed=seed) for seed in (1, 2)]
            after, trained = closed(rule, state, boards)
            weight = after.weights["decoder.q"]
            strands = [one.contribution.strands["decoder.q"] for one in trained]
            norms = [np.linalg.norm(one.b @ one.a) for one in strands] if name == "hetlora" else [1.0, 1.0]
            for field, held in (("b", weight.frozen_b), ("a", weight.frozen_a)):
                mean = np.average([getattr(one, field) for one in strands], axis=0, weights=norms)
                np.testing.assert_allclose(held, mean, atol=1e-6)

            for settings in (MergeSettings(server_rank=3, max_rank=MAX_RANK), replace(AMPLE, eta=0.999999)):
                other, _ = closed(rule, state, boards, settings)
                rows = other.weights["decoder.q"].frozen_a
                np.testing.assert_allclose(rows @ rows.T, np.eye(min(4, settings.server_rank)), atol=1e-5)


def test_what_a_board_did_not_train_counts_as_its_rule_says(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Where updates are changes, a board that did not train a weight changed nothing there: half the mean. Where they
    are goals it said nothing, and the others decide."""
    state = begun(rule, weights)
    trains, rests = Board((4, 4, 4), 30, seed=1), Board((0, 4, 4), 30, seed=2)

    after, (first, _) = closed(rule, state, [trains, rests])

    expected = first.end["decoder.q"] * (0.5 if rule.TRAITS.is_change else 1.0)
    np.testing.assert_allclose(product(after, "decoder.q"), expected, atol=1e-5)


def test_a_weight_that_nobody_trained_stays(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Its context bit for bit, though it is sketched and other weights are trained."""
    state, _ = closed(rule, begun(rule, weights), fleet(rule))

    after, _ = closed(rule, state, [Board((0, 4, 0), seed=seed, sketches=True) for seed in (1, 2)])

    for name in ("decoder.q", "decoder.o"):
        assert after.weights[name].frozen_b.tobytes() == state.weights[name].frozen_b.tobytes()
        assert after.weights[name].frozen_a.tobytes() == state.weights[name].frozen_a.tobytes()
    assert not np.allclose(product(after, "decoder.wi"), product(state, "decoder.wi"))


@pytest.mark.parametrize("eta", [0.5, 1.7])
def test_the_servers_step_acts_on_the_change(
    name: str, rule: Rule[Any], weights: tuple[Weight, ...], eta: float
) -> None:
    """η times what the plain step would have changed, in the space of W."""
    state, _ = closed(rule, begun(rule, weights), fleet(rule))
    boards = fleet(rule, 7)

    plain, _ = closed(rule, state, boards)
    other, _ = closed(rule, state, boards, replace(AMPLE, eta=eta))

    for weight in weights:
        was, moved = product(state, weight.name), product(plain, weight.name) - product(state, weight.name)
        expected = was + eta * moved
        np.testing.assert_allclose(product(other, weight.name), expected, atol=1e-5)


# --- invariants ----------------------------------------------------------------------------------------------------


def test_versions_follow_each_other(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """The profiles make version 1 and each round the next one, of the same weights in the same order."""
    state = begun(rule, weights)
    assert state.version == 1

    for version in (2, 3):
        state, _ = closed(rule, state, fleet(rule, version))
        assert state.version == version
        assert manifest_of(state) == weights


def test_the_order_of_arrival_does_not_matter(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """All 24 orders of four boards give the same next version to rounding."""
    state, _ = closed(rule, begun(rule, weights), fleet(rule))
    boards = [work(rule, state, board).contribution for board in fleet(rule, 5)]

    first, *others = (rule.merge(state, folded(rule, order), AMPLE) for order in itertools.permutations(boards))

    for other in others:
        assert_same_model(first, other)
        for name, weight in first.weights.items():
            np.testing.assert_allclose(other.weights[name].values, weight.values, rtol=1e-6)


@pytest.mark.parametrize("factor", [2, 1000])
def test_only_ratios_of_weights_matter(rule: Rule[Any], weights: tuple[Weight, ...], factor: int) -> None:
    """Every board with `factor` times the examples: the same next version."""
    state, _ = closed(rule, begun(rule, weights), fleet(rule))
    boards = fleet(rule, 5)

    one, _ = closed(rule, state, boards)
    other, _ = closed(rule, state, [replace(board, n_examples=factor * board.n_examples) for board in boards])

    assert_same_model(one, other)


def test_a_boards_weight_matters(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """One board with ten times the examples: another next version."""
    state, boards = begun(rule, weights), fleet(rule, 5)

    one, _ = closed(rule, state, boards)
    other, _ = closed(rule, state, [replace(boards[0], n_examples=30), *boards[1:]])

    assert np.linalg.norm(product(one, "decoder.q") - product(other, "decoder.q")) > 1e-3


def test_equal_boards_merge_to_one_of_them(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Duplicate directions: three boards that send the same are one board that sends it."""
    state, _ = closed(rule, begun(rule, weights), fleet(rule))
    board = Board((4, 2, 8), seed=3)

    three, _ = closed(rule, state, [board] * 3)
    one, _ = closed(rule, state, [board])

    assert_same_model(one, three)


def test_zero_and_deficient_strands_are_merged(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """B of zeros, and strands of one direction only, in two rounds: finite factors that boards can be sent."""
    state = begun(rule, weights)

    for _ in range(2):
        done = [work(rule, state, Board((4, 4, 4), seed=seed, size=0)).contribution for seed in (1, 2)]
        one = done[0].strands["decoder.q"]
        same = Factors(np.ones_like(one.b), np.broadcast_to(one.a[:1], one.a.shape))
        done[0] = replace(done[0], strands={**done[0].strands, "decoder.q": same})
        state = rule.merge(state, folded(rule, done), AMPLE)
        assert all(np.isfinite(product(state, weight.name)).all() for weight in weights)
        work(rule, state, Board((12, 12, 8)))


def test_a_restart_gives_the_same_bits(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """The same updates folded again in the same order on a state read back from the disk make the same version."""
    state, _ = closed(rule, begun(rule, weights), fleet(rule))

    one, _ = closed(rule, state, fleet(rule, 5))
    again, _ = closed(rule, decode_state(encode_state(state)), fleet(rule, 5))

    assert encode_state(one) == encode_state(again)


def test_folding_changes_no_argument(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """A total counts its boards, and stays what it was when another board is folded into it."""
    state = begun(rule, weights)
    first, *others = (work(rule, state, board).contribution for board in fleet(rule))
    total = folded(rule, [first])
    before = encode_state(rule.merge(state, total, AMPLE))

    more = folded(rule, [first, *others])
    rule.fold(total, others[0])

    assert (total.n_updates, more.n_updates) == (1, 4)
    assert encode_state(rule.merge(state, total, AMPLE)) == before


def test_a_sum_of_unknown_weights_is_refused(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """An error that names the weight, never skipped."""
    state = begun(rule, weights)
    strands = {"decoder.Q": Factors(np.ones((48, 2), np.float32), np.ones((2, 64), np.float32))}

    with pytest.raises(ValueError, match=r"decoder\.Q"):
        rule.merge(state, folded(rule, [Contribution(weight=1, strands=strands)]), AMPLE)


def test_a_round_without_weight_is_refused() -> None:
    """No board counts for nothing, less than nothing, or beyond all others."""
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="counts for"):
            Contribution(weight=weight)


def test_unequal_ranks_are_refused_where_they_cannot_be_merged(weights: tuple[Weight, ...]) -> None:
    """By name, if the run's own check has let them through."""
    for rule in (rule for rule in RULES.values() if rule.TRAITS.needs_equal_ranks):
        state = begun(rule, weights)
        with pytest.raises(ValueError, match="unequal ranks"):
            closed(rule, state, [Board((4, 4, 4)), Board((4, 8, 4))])


# --- memory --------------------------------------------------------------------------------------------------------


def bytes_of(held: Any) -> int:
    """Of all arrays in a total."""
    if isinstance(held, np.ndarray):
        return held.nbytes
    if is_dataclass(held):
        return sum(bytes_of(getattr(held, one.name)) for one in fields(held))
    if isinstance(held, Mapping):
        return sum(map(bytes_of, held.values()))
    return sum(map(bytes_of, held)) if isinstance(held, tuple) else 0


def test_a_sum_does_not_grow_with_the_fleet(name: str, rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """However many boards: B, or A and B, of the largest rank; where products are summed at most 12·m·n bytes per
    weight, for each rank index where these are weighted apart."""
    state = begun(rule, weights)
    boards = [work(rule, state, board).contribution for board in fleet(rule, sketches=False)]
    rank = max(len(strand.a) for board in boards for strand in board.strands.values())
    sides, values = sum(w.rows + w.columns + 1 for w in weights), sum(w.rows * w.columns for w in weights)
    most = {"basis": 8 * rank * sides, "factors": 8 * rank * sides, "products": 12 * values}[rule.TRAITS.space]
    most *= rank if name == "rank-partitioned" else 1

    total = folded(rule, boards * 50)

    assert total.n_updates == 200
    assert bytes_of(total) <= most
