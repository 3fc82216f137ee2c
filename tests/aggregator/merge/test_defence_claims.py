"""Claims that boards make to a defended round: rare strands, example counts, sketches, late updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregator.merge.defences.bounds import MAX_WEIGHT, bounded
from aggregator.merge.defences.defence import assumed_bad
from aggregator.merge.defences.defended import DEFENCES, Defended, defended
from aggregator.merge.gram import changed
from aggregator.merge.rules import RULES, folded
from aggregator.merge.state import initial_state
from tests.reference.attacked_fleets import (
    MAX_RANK,
    adapter,
    begun,
    distance,
    honest,
    merged,
    profiles,
    way,
)
from tests.reference.board import Board, work
from wire.run import Weight


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
