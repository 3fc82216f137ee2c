"""What boards are sent and send back: messages of every rule in every number format, starts, and late updates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.bases import random_basis
from aggregator.merge.initial_factors import initial_factors
from aggregator.merge.low_rank.approximation import truncate
from aggregator.merge.rules import RULES, Rule, fed_plora, folded
from aggregator.merge.slices import cut_woven
from aggregator.merge.state import AdapterState, WeightState, initial_state
from aggregator.merge.step import MergeSettings
from tests.reference.board import Board, Trained, work
from tests.reference.rounds import AMPLE, MAX_RANK, product
from wire.codec import encode
from wire.errors import WireError
from wire.fields import Dtype
from wire.messages import AdapterPart
from wire.run import Weight
from wire.tensors import unpack

SETTINGS = MergeSettings(server_rank=10, max_rank=MAX_RANK)
ROUNDING = {"fp32": 0.0, "bf16": 0.01, "int8": 0.06, "int4": 0.4}
"""How far a version may be from that of exact uploads, as a part of it: both factors are rounded."""

EQUAL = {"fresh", "flora"}
"""One mathematics where the server's step is the mean itself."""


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> Rule[Any]:
    return RULES[request.param]


def merged(
    rule: Rule[Any], state: AdapterState, done: list[Trained], settings: MergeSettings = SETTINGS
) -> AdapterState:
    return rule.merge(state, folded(rule, [one.contribution for one in done]), settings)


def after_a_round(rule: Rule[Any], weights: tuple[Weight, ...]) -> AdapterState:
    """Version 2, with frozen factors of rank 4 and more."""
    state = random_basis(initial_state(weights), max_rank=MAX_RANK, seed=5)
    boards = [Board((4, 4, 4), n, seed=n, size=1.0, sketches=True) for n in (3, 8)]
    return merged(rule, state, [work(rule, state, board) for board in boards])


def part_of(rule: Rule[Any], state: AdapterState, ranks: tuple[int, ...], name: str = "decoder.q") -> AdapterPart:
    return next(part for part in rule.cut(state, ranks, "fp32") if part.name == name)


def whole(part: AdapterPart) -> np.ndarray:
    """The adapter (m, n) that a board begins with."""
    context = unpack(part.frozen_b).astype(np.float64) @ unpack(part.frozen_a)
    return context if part.start_b is None else context + unpack(part.start_b).astype(np.float64) @ unpack(part.basis)


# --- messages ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("upload", ["fp32", "bf16", "int8", "int4"])
def test_messages_of_every_rule_pass_both_sides_checks(
    rule: Rule[Any], weights: tuple[Weight, ...], upload: Dtype
) -> None:
    """Four rounds of downloads and uploads as they travel, with and without sketches, rank 0 among the ranks: `work`
    runs check_adapter and check_update. Every version is as far from that of exact uploads as the rounding says."""
    state = random_basis(initial_state(weights), max_rank=MAX_RANK, seed=5)
    ranks = [(4, 0, 4), (4, 4, 0)] if rule.TRAITS.needs_equal_ranks else [(12, 0, 3), (1, 4, 0)]

    for round_id in range(4):
        boards = [Board(r, seed=round_id, sketches=round_id % 2 == 0, download="bf16") for r in ranks]
        exact = merged(rule, state, [work(rule, state, board) for board in boards])
        state = merged(rule, state, [work(rule, state, replace(board, upload=upload)) for board in boards])
        for name in state.weights:
            expected = product(exact, name)
            assert np.linalg.norm(product(state, name) - expected) <= ROUNDING[upload] * np.linalg.norm(expected)

    assert state.version == 5


def test_what_a_board_did_not_train_is_as_it_was_sent(weights: tuple[Weight, ...]) -> None:
    """The other factor of a contribution is the board's own copy, rounding included; without a start it is the server's
    rows, unrounded."""
    for name, rule in RULES.items():
        state = after_a_round(rule, weights)
        board = Board((4, 4, 4), download="bf16", upload="bf16")
        strands = work(rule, state, board).contribution.strands["decoder.q"]
        sent = next(part for part in rule.cut(state, board.ranks, "bf16") if part.name == "decoder.q")

        if rule.TRAITS.trains(state.version) == "a":
            assert sent.start_b is not None
            np.testing.assert_array_equal(strands.b, unpack(sent.start_b))
        elif rule.TRAITS.trains(state.version) == "b":
            expected = unpack(sent.basis) if rule.TRAITS.has_start else state.weights["decoder.q"].basis[:4]
            np.testing.assert_array_equal(strands.a, expected, err_msg=name)


def test_the_factor_that_rests_stays_bit_for_bit(weights: tuple[Weight, ...]) -> None:
    """Where boards train one factor at a time, the server's other one is not replaced by the boards' rounded copies."""
    for rule in (rule for rule in RULES.values() if len(rule.TRAITS.cycle) > 1):
        state = after_a_round(rule, weights)
        for _ in range(4):
            board = Board((3, 3, 3), download="bf16", upload="bf16")
            after = merged(rule, state, [work(rule, state, board)])
            trains = rule.TRAITS.trains(state.version)
            for name, weight in state.weights.items():
                held = after.weights[name]
                assert (held.frozen_a.tobytes() == weight.frozen_a.tobytes()) == (trains == "b")
                assert (held.frozen_b.tobytes() == weight.frozen_b.tobytes()) == (trains == "a")
                np.testing.assert_array_equal(held.frozen_b[:, 3:], weight.frozen_b[:, 3:])
                np.testing.assert_array_equal(held.frozen_a[3:], weight.frozen_a[3:])
            state = after


def test_ranks_0_are_the_whole_global_adapter(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """To evaluate: every weight's context, and nothing to train."""
    state = after_a_round(rule, weights)

    for part in rule.cut(state, (0, 0, 0), "fp32"):
        assert part.basis.shape[0] == 0 and part.start_b is None
        np.testing.assert_array_equal(whole(part), product(state, part.name))


@pytest.mark.parametrize("name", ["weave", "flexlora"])
def test_a_frozen_part_loses_no_strand_to_eight_bits(name: str) -> None:
    """Strands of very unequal length beside others that are trained, or all of them: of each at most a hundredth is
    lost, in half of the bytes that bf16 takes; what is trained is sent in bf16, exactly as before."""
    rng = np.random.default_rng(3)
    m, n = 384, 512
    lengths = np.logspace(0, -4, 10)
    b, a = (np.linalg.qr(rng.standard_normal((side, 10)))[0] for side in (m, n))
    state = random_basis(initial_state([Weight(name="w", rows=m, columns=n)]), max_rank=MAX_RANK, seed=5)
    weight = replace(
        state.weights["w"],
        frozen_b=(b * lengths).astype(np.float32),
        frozen_a=np.ascontiguousarray(a.T, dtype=np.float32),
    )
    state = replace(state, weights={"w": weight})

    for rank in (0, 4):
        (part,) = RULES[name].cut(state, (rank,), "bf16")
        held_b, held_a = unpack(part.frozen_b), unpack(part.frozen_a)
        first = 10 - part.frozen_b.shape[1]
        assert first == (10 if rank and name == "flexlora" else rank)
        for i in range(first, 10):
            expected = np.outer(weight.frozen_b[:, i], weight.frozen_a[i])
            held = np.outer(held_b[:, i - first], held_a[i - first])
            assert np.linalg.norm(held - expected) <= 0.01 * np.linalg.norm(expected)
        if first < 10:
            assert len(encode(part)) <= 0.56 * (10 - first) * 2 * (m + n) + 4 * rank * (m + n)
        if rank:
            assert part.start_b is not None and part.start_b.dtype == part.basis.dtype == "bf16"


def test_a_board_begins_at_the_global_adapter(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Whole where its rank or the rule allows, and its best approximation or its leading strands where not; B·A that is
    trained stands in a start or begins at zero over the context, never both."""
    state = after_a_round(rule, weights)
    held = state.weights["decoder.q"].frozen_a.shape[0]

    for rank in (1, 3, held, MAX_RANK):
        part = part_of(rule, state, (rank, 0, 0))
        weight = state.weights["decoder.q"]
        cuts_off = rule.TRAITS.has_start and rule.cut not in (cut_woven, fed_plora.cut)
        kept = min(rank, held) if cuts_off else held
        expected = weight.frozen_b[:, :kept].astype(np.float64) @ weight.frozen_a[:kept]
        np.testing.assert_allclose(whole(part), expected, atol=1e-5)
        assert (part.start_b is not None) == rule.TRAITS.has_start
        assert part.frozen_b.shape[1] == (kept - min(rank, held) if rule.TRAITS.has_start else held)
        assert part.basis.shape[0] == (0 if rule.TRAITS.own_basis else rank)


def test_impossible_ranks_are_refused(rule: Rule[Any], weights: tuple[Weight, ...]) -> None:
    """Too few, beyond a weight's basis, negative."""
    state = after_a_round(rule, weights)

    for ranks in ((4, 0), (13, 0, 0), (0, 0, 9), (0, -1, 0)):
        with pytest.raises(WireError):
            rule.cut(state, ranks, "bf16")


def test_the_rule_decides_the_next_download(weights: tuple[Weight, ...]) -> None:
    """The very same updates merged by another rule give another download; but for those that are one by design."""
    first = random_basis(initial_state(weights), max_rank=MAX_RANK, seed=5)
    ranks = [(4, 4, 4), (12, 2, 8)]
    for names in (("braid", "ffa", "fedsvd"), ("fresh", "flora"), ("delta", "flexlora", "hetlora", "rank-partitioned")):
        maker = RULES[names[0]]
        second = merged(maker, first, [work(maker, first, Board(r, size=1.0, sketches=True)) for r in ranks])
        third = [work(maker, second, Board(r, 10 + len(r), seed=i, sketches=True)) for i, r in enumerate(ranks)]

        sent = {}
        for name in names:
            version = merged(RULES[name], second, third)
            sent[name] = b"".join(encode(part) for part in RULES[name].cut(version, (4, 4, 4), "bf16"))

        assert len(set(sent.values())) == len({"fresh" if name in EQUAL else name for name in names})


# --- starts --------------------------------------------------------------------------------------------------------


@st.composite
def held_weights(draw: st.DrawFn) -> WeightState:
    """A weight whose context has fewer strands than its basis, or more; orthonormal or as averages leave it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    m, n = draw(st.integers(2, 20)), draw(st.integers(2, 20))
    held = draw(st.integers(0, min(m, n)))
    b, a = rng.standard_normal((m, held)).astype(np.float32), rng.standard_normal((held, n)).astype(np.float32)
    if draw(st.booleans()):
        b, a = truncate(b, a, held)
    count = draw(st.integers(1, min(m, n)))
    return WeightState(frozen_b=b, frozen_a=a, basis=np.eye(count, n, dtype=np.float32), values=np.zeros(count))


@given(held_weights(), st.integers(0, 2**50))
@settings(max_examples=100, deadline=None)
def test_starts_of_unequal_ranks_nest(weight: WeightState, seed: int) -> None:
    """A start is the leading part of every larger one, bit for bit. Strands that the context lacks have B = 0 and unit
    rows of A, orthogonal to those that it has: what they begin as changes nothing, and they can learn anything."""
    most, held = len(weight.basis), weight.frozen_a.shape[0]
    largest = initial_factors(weight, most, seed)

    for rank in range(most + 1):
        one = initial_factors(weight, rank, seed)
        np.testing.assert_array_equal(one.b, largest.b[:, :rank])
        np.testing.assert_array_equal(one.a, largest.a[:rank])
    new = largest.a[held:]
    assert not largest.b[:, held:].any()
    np.testing.assert_allclose(new @ new.T, np.eye(len(new)), atol=1e-5)
    np.testing.assert_allclose(new @ weight.frozen_a.T, 0, atol=1e-4)


def test_new_strands_are_random_in_every_version(weights: tuple[Weight, ...]) -> None:
    """Not along single features, other ones per weight and version, the same ones when asked again."""
    rule = RULES["delta"]
    first = random_basis(initial_state(weights), max_rank=MAX_RANK, seed=5)
    later = merged(rule, first, [work(rule, first, Board((0, 0, 4)))])

    one, again, other, newer = (
        unpack(part_of(rule, state, (4, 4, 0), name).basis)
        for state, name in ((first, "decoder.q"), (first, "decoder.q"), (first, "decoder.wi"), (later, "decoder.q"))
    )

    np.testing.assert_array_equal(one, again)
    assert np.abs(one).max() < 0.9
    assert not np.allclose(one, other) and not np.allclose(one, newer)


# --- late updates --------------------------------------------------------------------------------------------------


def test_woven_strands_go_on_along_the_basis(weights: tuple[Weight, ...]) -> None:
    """Strands that the adapter lacks begin at the shared basis' leading rows, as far as they are new to it; B is 0."""
    state = after_a_round(RULES["weave"], weights)
    weight = state.weights["decoder.q"]
    held = weight.frozen_a.astype(np.float64)
    part = part_of(RULES["weave"], state, (MAX_RANK, 0, 0))
    rows = unpack(part.basis).astype(np.float64)
    new = rows[len(held) :]

    assert len(new) and part.start_b is not None
    assert not unpack(part.start_b)[:, len(held) :].any()
    np.testing.assert_allclose(new @ new.T, np.eye(len(new)), atol=1e-5)
    np.testing.assert_allclose(new @ held.T, 0, atol=1e-5)
    both = np.concatenate([held, weight.basis[: len(new)].astype(np.float64)])
    assert np.linalg.matrix_rank(np.concatenate([both, new]), tol=1e-3) == np.linalg.matrix_rank(both, tol=1e-3)


def test_a_late_update_adds_what_it_would_have_added_then(weights: tuple[Weight, ...]) -> None:
    """For every rule whose updates are changes: read in the basis and start of the version that its board was sent,
    whatever the newest version's are; alone, and beside an update that is not late."""
    for rule in (rule for rule in RULES.values() if rule.TRAITS.is_change):
        old = after_a_round(rule, weights)
        late = work(rule, old, Board((4, 2, 8), 30, seed=9), staleness=2)
        newest = old
        for seed in (1, 2):
            newest = merged(rule, newest, [work(rule, newest, Board((3, 3, 3), seed=seed, sketches=True))], AMPLE)
        timely = work(rule, newest, Board((4, 0, 3), 10, seed=4))

        alone, both = merged(rule, newest, [late], AMPLE), merged(rule, newest, [late, timely], AMPLE)

        for name in old.weights:
            change, other = late.end[name] - late.start[name], timely.end[name] - timely.start[name]
            np.testing.assert_allclose(product(alone, name), product(newest, name) + change, atol=1e-5)
            expected = product(newest, name) + 0.75 * change + 0.25 * other
            np.testing.assert_allclose(product(both, name), expected, atol=1e-5)
