"""Defences against their papers' dense definitions, and what bad boards can still do behind each of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aggregator.merge.defences.bounds import MAX_WEIGHT, bounded
from aggregator.merge.defences.defence import assumed_bad
from aggregator.merge.defences.defended import DEFENCES, Defended, defended
from aggregator.merge.gram import changed, gram, squared_distances
from aggregator.merge.rules import RULES, Rule, folded
from aggregator.merge.state import AdapterState, Factors, encode_state, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from tests.reference import defences as reference
from tests.reference.board import Board, work
from wire.checks import basis_rank
from wire.messages import Weight

MAX_RANK = 12
AMPLE = MergeSettings(server_rank=64, max_rank=MAX_RANK)
"""More than any sum of these tests has: nothing is truncated."""

PAIRS = [(rule, name) for rule in RULES for name in DEFENCES if DEFENCES[name].fits(RULES[rule].TRAITS)]


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> Rule[Any]:
    return RULES[request.param]


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


# --- the Gram matrix -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("staleness", [0, 2])
def test_the_gram_matrix_is_that_of_dense_changes(rule: Rule[Any], weights: tuple[Weight, ...], staleness: int) -> None:
    """Of factors alone, on one basis or on many: unequal ranks, weights that only some trained, starts taken off."""
    state = begun(rule, weights)
    boards = fleet(rule, state, weights)
    boards[1] = replace(boards[1], staleness=staleness)

    found = gram(boards, rule.TRAITS.space)

    points = np.stack([dense(board, weights) for board in boards])
    np.testing.assert_allclose(found, points @ points.T, atol=2e-6 * np.linalg.norm(points) ** 2)
    distances = [[np.sum((x - y) ** 2) for y in points] for x in points]
    np.testing.assert_allclose(squared_distances(found), distances, atol=4e-6 * np.linalg.norm(points) ** 2)


# --- each defence against its definition ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_bad", [1, 2, 3])
def test_multi_krum_leaves_out_those_of_highest_score(weights: tuple[Weight, ...], n_bad: int) -> None:
    """The same boards as by distances of dense vectors; the others go on as they are."""
    rule, state = RULES["fresh"], begun(RULES["fresh"], weights)
    boards = [honest(rule, state, 2 + i, i, way(weights, i)) for i in range(9)]

    believed = DEFENCES["multi-krum"].filtered(boards, rule.TRAITS, n_bad / len(boards))

    scores = reference.krum_scores([dense(board, weights) for board in boards], n_bad)
    worst = set(np.argsort(scores)[len(boards) - n_bad :].tolist())
    assert {i for i, trust in enumerate(believed.trust) if trust == 0} == worst
    assert list(believed.boards) == [board for i, board in enumerate(boards) if i not in worst]


@pytest.mark.parametrize(("n_boards", "attackers", "left_out"), [(2, 0.4, 0), (4, 0.4, 0), (5, 0.4, 1), (9, 0.1, 1)])
def test_multi_krum_leaves_out_no_more_than_it_can_tell(
    weights: tuple[Weight, ...], n_boards: int, attackers: float, left_out: int
) -> None:
    """f is lowered until n ≥ 2f + 3; below five boards nobody is left out."""
    rule, state = RULES["braid"], begun(RULES["braid"], weights)
    boards = [honest(rule, state, 4, i, way(weights, 1)) for i in range(n_boards)]

    assert len(DEFENCES["multi-krum"].filtered(boards, rule.TRAITS, attackers).boards) == n_boards - left_out


def test_the_geometric_median_has_the_least_summed_distance(weights: tuple[Weight, ...]) -> None:
    """Of dense points: no small step from it, towards any board or at random, comes closer; weights keep their sum."""
    rule, state = RULES["delta"], begun(RULES["delta"], weights)
    boards = [replace(b, weight=float(1 + i)) for i, b in enumerate(fleet(rule, state, weights))]

    believed = DEFENCES["geometric-median"].filtered(boards, rule.TRAITS, 0.2)

    fair, found = [b.weight for b in boards], np.array([b.weight for b in believed.boards])
    assert found.sum() == pytest.approx(sum(fair))
    np.testing.assert_allclose(believed.trust, found / fair)
    points = [dense(board, weights) for board in boards]
    z = np.einsum("k,kx->x", found / found.sum(), np.stack(points))
    least = reference.summed_distance(z, points, fair)
    rng = np.random.default_rng(0)
    for step in (*(point - z for point in points), *rng.standard_normal((20, len(z))) * 0.01):
        for size in (0.01, 0.1, 0.5):
            assert reference.summed_distance(z + size * step, points, fair) >= least * (1 - 1e-9)


def test_norm_clipping_draws_boards_down_to_the_median(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """No change is larger than the median per √strand; those below it are left alone; ranks and starts stay, and so
    does the direction where one factor was trained."""
    state = begun(rule, weights)
    boards = [honest(rule, state, 4, i, way(weights, 7)) for i in range(5)]
    boards[3] = attacked(boards[3], "scaled")

    believed = DEFENCES["norm-clip"].filtered(boards, rule.TRAITS, 0.2)

    before = [dense(board, weights) for board in boards]
    norms = [float(np.linalg.norm(point)) for point in before]
    limit = sorted(norms)[2]
    assert [trust == 1.0 for trust in believed.trust] == [norm <= limit for norm in norms]
    for board, clipped, was in zip(boards, believed.boards, before, strict=True):
        now = dense(clipped, weights)
        assert np.linalg.norm(now) == pytest.approx(min(float(np.linalg.norm(was)), limit), rel=1e-3)
        assert clipped.start is board.start
        assert all(clipped.strands[name].a.shape == strand.a.shape for name, strand in board.strands.items())
        if board.trains != "both":
            np.testing.assert_allclose(now / np.linalg.norm(now), was / np.linalg.norm(was), atol=1e-4)


def test_boards_of_many_strands_are_not_clipped_for_that(weights: tuple[Weight, ...]) -> None:
    """A board that moves four times as many strands as far as the others move theirs keeps its whole change."""
    state = begun(RULES["braid"], weights)
    ranks = (2, 2, 2, 8)
    boards = [work(RULES["braid"], state, Board(ranks=(r, r, r), seed=i)).contribution for i, r in enumerate(ranks)]
    boards = [
        replace(board, strands={n: Factors(np.full_like(s.b, 0.1), s.a) for n, s in board.strands.items()})
        for board in boards
    ]

    assert min(DEFENCES["norm-clip"].filtered(boards, RULES["braid"].TRAITS, 0.2).trust) > 0.99


@pytest.mark.parametrize("name", ["trimmed-mean", "median"])
def test_coordinates_on_one_basis_are_those_of_b(weights: tuple[Weight, ...], name: str) -> None:
    """Strand by strand, over the boards that have it: entry for entry the paper's definition."""
    rule, state = RULES["braid"], begun(RULES["braid"], weights)
    boards = [
        work(rule, state, Board(ranks=(r, 12, min(r, 8)), seed=i)).contribution
        for i, r in enumerate((2, 2, 4, 4, 4, 9, 12))
    ]

    (found,) = DEFENCES[name].filtered(boards, rule.TRAITS, 0.2).boards

    for weight in weights:
        sent = [board.strands[weight.name].b.astype(np.float64) for board in boards]
        expected = reference.strand_by_strand(sent, 1)
        if name == "median":
            for column in range(expected.shape[1]):
                there = [b[:, column] for b in sent if b.shape[1] > column]
                if len(there) > 2:
                    expected[:, column] = np.median(there, axis=0) * len(there) / len(boards)
        strand = found.strands[weight.name]
        full = np.zeros_like(expected)
        full[:, : strand.b.shape[1]] = strand.b
        np.testing.assert_allclose(full, expected, atol=1e-6)


@pytest.mark.parametrize("name", DEFENCES)
def test_it_does_not_matter_which_factors_make_a_product(weights: tuple[Weight, ...], name: str) -> None:
    """Boards that send B·R and R⁻¹·A for any R change nothing: raw A and B are never compared."""
    rule, state = RULES["fresh"], begun(RULES["fresh"], weights)
    boards = [honest(rule, state, 4, i, way(weights, 5)) for i in range(7)]
    boards[2] = attacked(boards[2], "scaled")
    rng, turned = np.random.default_rng(3), []
    for board in boards:
        strands = {}
        for w, strand in board.strands.items():
            r = np.linalg.qr(rng.standard_normal((len(strand.a), len(strand.a))))[0] * 5
            strands[w] = Factors((strand.b @ r).astype(np.float32), (np.linalg.inv(r) @ strand.a).astype(np.float32))
        turned.append(replace(board, strands=strands))

    one, other = (merged(defended(rule, name, 0.2), state, b) for b in (boards, turned))

    assert distance(one, other, state) < 1e-4


# --- what every defence keeps --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule_name", "name"), PAIRS)
def test_the_order_of_arrival_does_not_matter(weights: tuple[Weight, ...], rule_name: str, name: str) -> None:
    """Any order of the boards gives the same version to rounding, and the same order the same bits; nothing that was
    given changes."""
    rule, state = RULES[rule_name], begun(RULES[rule_name], weights)
    boards = fleet(rule, state, weights)
    boards = [replace(b, sketches=p.sketches) for b, p in zip(boards, profiles(weights, 5), strict=True)]
    guarded = defended(rule, name, 0.2)
    copies = [{w: (s.b.copy(), s.a.copy()) for w, s in board.strands.items()} for board in boards]

    first, again, *others = (
        merged(guarded, state, list(order))
        for order in (boards, boards, *itertools.islice(itertools.permutations(boards), 1, 120, 29))
    )

    assert encode_state(first) == encode_state(again)
    for other in others:
        assert distance(first, other, state) < 1e-4
    for board, copy in zip(boards, copies, strict=True):
        for w, (b, a) in copy.items():
            np.testing.assert_array_equal(board.strands[w].b, b)
            np.testing.assert_array_equal(board.strands[w].a, a)


@pytest.mark.parametrize(("rule_name", "name"), PAIRS)
def test_boards_that_agree_are_merged_as_without_a_defence(
    weights: tuple[Weight, ...], rule_name: str, name: str
) -> None:
    """Seven boards that send the same: the same version as by the rule alone, to 1e-3 of the step."""
    rule, state = RULES[rule_name], begun(RULES[rule_name], weights)
    board = honest(rule, state, 4, 1, way(weights, 4))

    plain, guarded = (merged(one, state, [board] * 7) for one in (rule, defended(rule, name, 0.2)))

    assert distance(plain, guarded, state) < 1e-3


@pytest.mark.parametrize(("rule_name", "name"), PAIRS)
def test_without_attackers_little_is_lost(weights: tuple[Weight, ...], rule_name: str, name: str) -> None:
    """Ten honest boards of one rank that differ by noise: less than 0.15 of a step from the rule alone."""
    rule, state = RULES[rule_name], begun(RULES[rule_name], weights)
    boards = [honest(rule, state, 8, i, way(weights, 4)) for i in range(10)]

    plain, guarded = (merged(one, state, boards) for one in (rule, defended(rule, name, 0.2)))

    assert distance(plain, guarded, state) < 0.15


BOUNDS = {"norm-clip": 0.7, "multi-krum": 1e-3, "geometric-median": 0.25, "trimmed-mean": 0.25, "median": 0.25}
"""Of three bad boards in ten, as a part of the honest boards' step. Undefended it is 0.6 for sign flips, 3 to 8 for
scaled ones."""


@pytest.mark.parametrize("attack", ["sign-flip", "scaled", "noise"])
@pytest.mark.parametrize(("rule_name", "name"), PAIRS)
def test_attackers_are_held_in_check(weights: tuple[Weight, ...], rule_name: str, name: str, attack: str) -> None:
    """Three bad boards of ten: the version stays near the one that the honest ones make alone, at less than half of the
    distance that it has without a defence. Clipping does nothing against bad boards of honest size."""
    rule, state = RULES[rule_name], begun(RULES[rule_name], weights)
    boards = [honest(rule, state, 8, i, way(weights, 4)) for i in range(10)]
    bad = {1, 4, 8}
    sent = [attacked(board, attack, i) if i in bad else board for i, board in enumerate(boards)]

    alone = merged(rule, state, [board for i, board in enumerate(boards) if i not in bad])
    plain, guarded = (merged(one, state, sent) for one in (rule, defended(rule, name, 0.3)))

    # hetlora counts boards by their norm, whatever the defence has made of their weight
    assert distance(alone, guarded, state) < (0.7 if rule_name == "hetlora" else BOUNDS[name])
    if name != "norm-clip" or attack == "scaled":
        assert distance(alone, guarded, state) < distance(alone, plain, state) / 2


# --- what a board may claim ----------------------------------------------------------------------------------------


def test_a_lone_board_on_a_rare_strand_does_not_move_it(weights: tuple[Weight, ...]) -> None:
    """Where strands are compared, those that at most twice the assumed bad boards trained stay as they were."""
    rule, state = RULES["braid"], begun(RULES["braid"], weights)
    boards = [honest(rule, state, 2, i, way(weights, 4)) for i in range(6)]
    liar = honest(rule, state, 12, 7, {name: 5 * goal for name, goal in way(weights, 8).items()})

    for name in ("trimmed-mean", "median"):
        (believed,) = DEFENCES[name].filtered([*boards, liar], rule.TRAITS, 0.2).boards
        assert all(strand.b.shape[1] == 2 for strand in believed.strands.values())


def test_what_half_of_the_boards_hold_is_not_voted_down(weights: tuple[Weight, ...]) -> None:
    """Strands that four of ten boards trained move by four tenths of these boards' mean, as without a defence."""
    rule, state = RULES["braid"], begun(RULES["braid"], weights)
    boards = [honest(rule, state, 2 if i < 6 else 8, i, way(weights, 4), noise=0.0) for i in range(10)]

    plain, guarded = (merged(one, state, boards) for one in (rule, defended(rule, "median", 0.1)))

    assert distance(plain, guarded, state) < 1e-3


def test_no_board_counts_for_many(weights: tuple[Weight, ...]) -> None:
    """A claim of a million examples counts as MAX_WEIGHT boards, smaller ones stay as they are."""
    boards = [replace(board, weight=w) for board, w in zip(profiles(weights, 4), (10.0, 1e6, 12.0, 1.0), strict=True)]

    assert [board.weight for board in bounded(boards)] == [10.0, MAX_WEIGHT * 11, 12.0, 1.0]


def test_no_board_chooses_a_basis_alone(weights: tuple[Weight, ...]) -> None:
    """A huge sketch is drawn down to the median of its weight; a weight that only a liar sketched keeps its basis."""
    name, *_ = [w.name for w in weights]
    boards = profiles(weights, 5)
    liar = replace(boards[4], sketches={w: 1e3 * sketch for w, sketch in boards[4].sketches.items()})

    sketches = bounded([*boards[:4], liar])
    alone = bounded([*(replace(b, sketches={}) for b in boards[:4]), liar])
    few = bounded([boards[0], liar])

    norms = [float(np.linalg.norm(board.sketches[name])) for board in sketches]
    assert norms[4] == pytest.approx(
        np.median([np.linalg.norm(b.sketches[name]) for b in (*boards[:4], liar)]), rel=1e-4
    )
    assert not alone[4].sketches
    assert few[1].sketches.keys() == liar.sketches.keys()


@pytest.mark.parametrize("name", DEFENCES)
def test_profiles_make_the_first_basis_behind_every_defence(weights: tuple[Weight, ...], name: str) -> None:
    """Nothing was trained yet: every profile counts, also those farthest from the others; scores come through."""
    bare, shares = initial_state(weights), {w.name: 1 / len(weights) for w in weights}
    boards = [replace(board, shares=shares) for board in profiles(weights, 5)]
    guarded = defended(RULES["braid"], name, 0.4)

    state = guarded.first_basis(bare, folded(guarded, boards), max_rank=MAX_RANK, seed=3)

    assert state.version == 1
    for w in weights:
        assert state.weights[w.name].score == pytest.approx(shares[w.name])
    believed = Defended(RULES["braid"], DEFENCES[name], 0.4).filtered(folded(guarded, boards))
    assert believed.trust == (1.0,) * 5 and len(believed.boards) == 5


@pytest.mark.parametrize("name", DEFENCES)
def test_a_round_in_which_nobody_changed_anything_changes_nothing(weights: tuple[Weight, ...], name: str) -> None:
    """Bit for bit, where the rule alone would not either."""
    for rule in (RULES["braid"], RULES["delta"]):
        state = begun(rule, weights)
        boards = [work(rule, state, Board(ranks=(4, 4, 4), seed=i, size=0.0)).contribution for i in range(6)]

        after = merged(defended(rule, name, 0.2), state, boards)

        for w in state.weights:
            assert after.weights[w].frozen_b.tobytes() == state.weights[w].frozen_b.tobytes()


@pytest.mark.parametrize("name", DEFENCES)
def test_late_updates_are_compared_in_the_space_of_products(weights: tuple[Weight, ...], name: str) -> None:
    """A board that trained on an older basis is held beside the others by what it changed, and counts."""
    rule, old = RULES["braid"], begun(RULES["braid"], weights)
    state = merged(rule, old, profiles(weights, seed=50))
    assert not np.allclose(state.weights["decoder.q"].basis, old.weights["decoder.q"].basis)
    to = way(weights, 4)
    late = replace(honest(rule, old, 12, 9, to, noise=0.0), staleness=1)
    boards = [honest(rule, state, 12, i, to, noise=0.0) for i in range(4)]

    guarded = merged(defended(rule, name, 0.2), state, [*boards, late])

    moved = adapter(guarded) - adapter(state)
    wanted = np.concatenate([to[w.name].ravel() for w in weights])
    assert moved @ wanted / (np.linalg.norm(moved) * np.linalg.norm(wanted)) > 0.25
    assert not any(changed(late, w.name)[1] is state.weights[w.name].basis for w in weights)


@pytest.mark.parametrize(("n_boards", "share", "n_bad"), [(3, 0.1, 1), (10, 0.2, 2), (10, 0.3, 3), (100, 0.29, 29)])
def test_one_board_at_least_may_be_bad(n_boards: int, share: float, n_bad: int) -> None:
    """The share rounded down, exact where it is a whole number."""
    assert assumed_bad(n_boards, share) == n_bad
