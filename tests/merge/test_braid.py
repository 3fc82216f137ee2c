"""The default merge rule against the dense float64 reference, and the invariants that docs/merging.md lists."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.braid import cut, first_basis, merge, random_basis
from aggregator.merge.state import AdapterState, initial_state, strand_values
from aggregator.merge.sums import Contribution, RoundSum, contribution, fold, profile_contribution
from tests.reference import braid as reference
from wire.errors import WireError
from wire.manifest import manifest_digest
from wire.messages import NamedTensor, Profile, Weight
from wire.tensors import pack, unpack

MAX_RANK, SERVER_RANK = 12, 10


def product(state: AdapterState, name: str) -> np.ndarray:
    """W_g (m, n) in float64."""
    weight = state.weights[name]
    return weight.context_b.astype(np.float64) @ weight.context_a


def sketch_shapes(weights: tuple[Weight, ...]) -> dict[str, tuple[int, int]]:
    return {w.name: (min(MAX_RANK, w.rows, w.columns), w.columns) for w in weights}


def fleet(weights: tuple[Weight, ...], seed: int) -> list[Contribution]:
    """Four boards of unequal rank and example count; each leaves out another weight, one only sketches."""
    rng = np.random.default_rng(seed)
    boards = []
    for i, (n_examples, rank) in enumerate([(3, 2), (50, 8), (7, 5), (200, 1)]):
        trained = [w for j, w in enumerate(weights) if j != i]
        b = {w.name: rng.standard_normal((w.rows, min(rank, w.columns))).astype(np.float32) for w in trained}
        sketches = {
            name: rng.standard_normal(shape).astype(np.float32)
            for name, shape in sketch_shapes(weights).items()
            if i % 2 == 0 and name != "decoder.o"
        }
        boards.append(Contribution(n_examples=n_examples, b=b, sketches=sketches))
    return boards


def total_of(boards: list[Contribution]) -> RoundSum:
    total = None
    for board in boards:
        total = fold(total, board)
    assert total is not None
    return total


def assert_same_model(one: AdapterState, other: AdapterState, atol: float) -> None:
    for name in one.weights:
        np.testing.assert_allclose(product(one, name), product(other, name), atol=atol)
        np.testing.assert_allclose(one.weights[name].basis, other.weights[name].basis, atol=atol)
        np.testing.assert_allclose(one.weights[name].values, other.weights[name].values, rtol=1e-6)


# --- the rule itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [1.0, 0.7])
def test_five_rounds_equal_the_dense_reference(weights: tuple[Weight, ...], state: AdapterState, eta: float) -> None:
    """Unequal ranks, boards that train different weights, non-square shapes: contexts, bases and values agree."""
    dense = {name: np.zeros(weight.shape) for name, weight in state.weights.items()}

    for round_id in range(5):
        boards = fleet(weights, round_id)
        n_examples = sum(board.n_examples for board in boards)
        before = state
        state = merge(state, total_of(boards), server_rank=SERVER_RANK, max_rank=MAX_RANK, eta=eta)

        for name in dense:
            basis = before.weights[name].basis.astype(np.float64)
            sent = [(board.n_examples, board.b.get(name)) for board in boards]
            dense[name] = reference.merged(dense[name], basis, sent, SERVER_RANK, eta)
            np.testing.assert_allclose(product(state, name), dense[name], atol=2e-6 * np.linalg.norm(dense[name]))
            sketches = [(board.n_examples, board.sketches[name]) for board in boards if name in board.sketches]
            if sketches:
                rows = len(state.weights[name].basis)
                projector, squares = reference.strands(sketches, n_examples, rows)
                new = state.weights[name].basis.astype(np.float64)
                np.testing.assert_allclose(new.T @ new, projector, atol=1e-6)
                np.testing.assert_allclose(state.weights[name].values, squares, rtol=1e-9)


def test_one_board_alone_is_applied_exactly(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """With one board and rank to spare, the merge adds just B·A, whatever its example count."""
    board = fleet(weights, 1)[2]

    merged = merge(state, fold(None, board), server_rank=MAX_RANK, max_rank=MAX_RANK)

    for name, b in board.b.items():
        expected = b.astype(np.float64) @ state.weights[name].basis[: b.shape[1]]
        np.testing.assert_allclose(product(merged, name), expected, atol=1e-5)


def test_the_mean_is_over_the_whole_cohort(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """A board that did not train a weight counts as zero there: the same as one that sends zeros for it."""
    trained, absent = fleet(weights, 2)[1], Contribution(n_examples=50, b={}, sketches={})
    zeros = Contribution(
        n_examples=50, b={name: np.zeros_like(b) for name, b in trained.b.items()}, sketches=trained.sketches
    )

    without = merge(state, total_of([trained, absent]), server_rank=MAX_RANK, max_rank=MAX_RANK)
    with_zeros = merge(state, total_of([trained, zeros]), server_rank=MAX_RANK, max_rank=MAX_RANK)

    for name, b in trained.b.items():
        half = 0.5 * b.astype(np.float64) @ state.weights[name].basis[: b.shape[1]]
        np.testing.assert_allclose(product(without, name), half, atol=1e-5)
        np.testing.assert_array_equal(product(without, name), product(with_zeros, name))


# --- invariants ----------------------------------------------------------------------------------------------------


def test_boards_that_send_zeros_change_nothing(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """Twenty no-op rounds with a new basis each leave every W_g bit for bit as it was."""
    state = merge(state, total_of(fleet(weights, 3)), server_rank=SERVER_RANK, max_rank=MAX_RANK)
    start = state

    for round_id in range(20):
        boards = [
            Contribution(
                n_examples=board.n_examples,
                b={name: np.zeros_like(b) for name, b in board.b.items()},
                sketches=board.sketches,
            )
            for board in fleet(weights, 100 + round_id)
        ]
        before = state
        state = merge(state, total_of(boards), server_rank=SERVER_RANK, max_rank=MAX_RANK)
        assert not np.array_equal(state.weights["decoder.q"].basis, before.weights["decoder.q"].basis)

    assert state.version == start.version + 20
    for name, weight in state.weights.items():
        assert weight.context_b.any()
        assert weight.context_b.tobytes() == start.weights[name].context_b.tobytes()
        assert weight.context_a.tobytes() == start.weights[name].context_a.tobytes()


def test_truncating_again_and_again_does_not_drift(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """Twenty rounds of a B that is not quite zero, so that every context is factored anew: less than 1e-6 is lost."""
    state = merge(state, total_of(fleet(weights, 4)), server_rank=SERVER_RANK, max_rank=MAX_RANK)
    start = {name: product(state, name) for name in state.weights}
    tiny = {name: np.full((w.shape[0], 1), 1e-12, np.float32) for name, w in state.weights.items()}
    total = fold(None, Contribution(n_examples=1, b=tiny, sketches={}))

    for _ in range(20):
        state = merge(state, total, server_rank=SERVER_RANK, max_rank=MAX_RANK)

    for name, w in start.items():
        assert np.linalg.norm(product(state, name) - w) <= 1e-6 * np.linalg.norm(w)


def test_boards_that_cancel_out_change_nothing(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """+B and −B from boards of equal weight sum to zero exactly, and zero keeps every context bit for bit."""
    board = fleet(weights, 3)[1]
    start = merge(state, total_of([board]), server_rank=SERVER_RANK, max_rank=MAX_RANK)
    against = Contribution(
        n_examples=board.n_examples, b={name: -b for name, b in board.b.items()}, sketches=board.sketches
    )

    after = merge(start, total_of([board, against]), server_rank=SERVER_RANK, max_rank=MAX_RANK)

    for name, weight in after.weights.items():
        assert weight.context_b.tobytes() == start.weights[name].context_b.tobytes()
        assert weight.context_a.tobytes() == start.weights[name].context_a.tobytes()


def test_the_order_of_arrival_does_not_matter(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """All 24 orders of four boards give the same next version to rounding."""
    boards = fleet(weights, 5)

    merged = [
        merge(state, total_of(list(order)), server_rank=SERVER_RANK, max_rank=MAX_RANK)
        for order in itertools.permutations(boards)
    ]

    for other in merged[1:]:
        assert_same_model(merged[0], other, atol=1e-6)


@given(st.integers(1, 5000))
@settings(max_examples=20, deadline=None)
def test_only_ratios_of_example_counts_matter(factor: int) -> None:
    """Every board with `factor` times the examples: the same next version."""
    weights = (Weight(name="q", rows=48, columns=64),)
    state = random_basis(initial_state(weights), max_rank=MAX_RANK, seed=1)
    boards = [
        Contribution(
            n_examples=n,
            b={"q": np.random.default_rng(n).standard_normal((48, n)).astype(np.float32)},
            sketches={"q": np.random.default_rng(n).standard_normal((12, 64)).astype(np.float32)},
        )
        for n in (2, 9)
    ]
    scaled = [Contribution(n_examples=b.n_examples * factor, b=b.b, sketches=b.sketches) for b in boards]

    one, other = (merge(state, total_of(c), server_rank=SERVER_RANK, max_rank=MAX_RANK) for c in (boards, scaled))

    assert_same_model(one, other, atol=1e-5)


def test_equal_boards_merge_to_one_of_them(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """Duplicate directions: three boards that send the same B are one board that sends it."""
    board = fleet(weights, 6)[0]

    three = merge(state, total_of([board] * 3), server_rank=SERVER_RANK, max_rank=MAX_RANK)
    one = merge(state, total_of([board]), server_rank=SERVER_RANK, max_rank=MAX_RANK)

    assert_same_model(one, three, atol=1e-6)


def test_folding_changes_no_argument(weights: tuple[Weight, ...]) -> None:
    """A sum stays what it was when another board, of lower or higher rank, is folded into it."""
    boards = fleet(weights, 7)
    before = fold(None, boards[0])
    kept = {name: b.copy() for name, b in before.b.items()}

    after = fold(before, boards[1])

    assert (before.n_updates, after.n_updates, after.n_examples) == (1, 2, 53)
    for name, b in kept.items():
        np.testing.assert_array_equal(before.b[name], b)
    with pytest.raises(TypeError):
        after.b["decoder.q"] = np.zeros((1, 1))  # type: ignore[index]


def test_a_sum_does_not_grow_with_the_fleet(weights: tuple[Weight, ...]) -> None:
    """A hundred boards take the memory of the widest one."""
    boards = fleet(weights, 8)

    total = total_of(boards * 25)

    assert total.n_updates == 100
    for name, b in total.b.items():
        assert b.shape[1] == max(board.b[name].shape[1] for board in boards if name in board.b)


def test_zero_and_duplicate_sketch_directions_get_random_rows(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """A sketch of rank 2 gives two valued strands; the others are random, orthonormal, not axis-aligned, value 0."""
    rng = np.random.default_rng(9)
    deficient = np.tile(rng.standard_normal((2, 64)), (6, 1)).astype(np.float32)
    sketches = {"decoder.q": deficient, "decoder.wi": np.zeros((12, 64), np.float32)}

    merged = merge(
        state, fold(None, Contribution(n_examples=4, b={}, sketches=sketches)), server_rank=8, max_rank=MAX_RANK
    )

    for name, significant in (("decoder.q", 2), ("decoder.wi", 0)):
        weight = merged.weights[name]
        assert (weight.values > 0).sum() == significant
        assert (np.diff(weight.values) <= 0).all()
        np.testing.assert_allclose(weight.basis @ weight.basis.T, np.eye(MAX_RANK), atol=1e-5)
        assert np.abs(weight.basis[significant:]).max() < 0.9
    assert merged.weights["decoder.o"] is state.weights["decoder.o"]


def test_merging_is_deterministic(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """The same round merged twice, as after a restart, gives the same bits."""
    boards = fleet(weights, 10)

    one, other = (merge(state, total_of(boards), server_rank=SERVER_RANK, max_rank=MAX_RANK) for _ in range(2))

    for name in one.weights:
        for field in ("context_b", "context_a", "basis", "values"):
            assert getattr(one.weights[name], field).tobytes() == getattr(other.weights[name], field).tobytes()


def test_a_sum_that_does_not_fit_is_refused(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """A renamed weight, a rank beyond the basis or a transposed B is an error that names it, never skipped."""

    def of(b: dict[str, np.ndarray]) -> RoundSum:
        return fold(None, Contribution(n_examples=1, b=b, sketches={}))

    for b, named in (
        ({"decoder.Q": np.ones((48, 2), np.float32)}, "decoder.Q"),
        ({"decoder.q": np.ones((48, 13), np.float32)}, "basis"),
        ({"decoder.q": np.ones((64, 2), np.float32)}, "basis"),
    ):
        with pytest.raises(ValueError, match=named):
            merge(state, of(b), server_rank=8, max_rank=MAX_RANK)


# --- the first basis -----------------------------------------------------------------------------------------------


def test_the_first_basis_comes_from_profiles(weights: tuple[Weight, ...]) -> None:
    """Version 1 holds the strands of the profiles, by value; a weight that nobody reached gets random ones, value 0."""
    rng = np.random.default_rng(11)
    shapes = {name: shape for name, shape in sketch_shapes(weights).items() if name != "decoder.o"}
    arrays = [{name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(2)]
    profiles = [
        Profile(
            protocol=1,
            run_id="run",
            manifest=manifest_digest(weights),
            n_examples=n,
            sketches=tuple(NamedTensor(name=name, tensor=pack(y, "fp32")) for name, y in sketches.items()),
        )
        for n, sketches in zip((10, 30), arrays, strict=True)
    ]

    total = total_of([profile_contribution(profile) for profile in profiles])
    state = first_basis(initial_state(weights), total, max_rank=MAX_RANK, seed=3)

    assert state.version == 1
    for name in shapes:
        _, squares = reference.strands([(n, a[name]) for n, a in zip((10, 30), arrays, strict=True)], 40, MAX_RANK)
        np.testing.assert_allclose(state.weights[name].values, squares, rtol=1e-9)
    assert state.weights["decoder.o"].basis.shape == (8, 8)
    assert not state.weights["decoder.o"].values.any()


def test_a_random_basis_depends_on_seed_and_name(weights: tuple[Weight, ...]) -> None:
    """Orthonormal rows, min(max_rank, m, n) of them, all of value 0; another seed or name gives others."""
    bare = initial_state(weights)

    one, same, other = (random_basis(bare, max_rank=MAX_RANK, seed=seed) for seed in (1, 1, 2))

    assert strand_values(bare) == ()
    assert [len(v) for v in strand_values(one)] == [12, 12, 8]
    for name, weight in one.weights.items():
        np.testing.assert_allclose(weight.basis @ weight.basis.T, np.eye(len(weight.basis)), atol=1e-5)
        np.testing.assert_array_equal(weight.basis, same.weights[name].basis)
        assert not np.allclose(weight.basis, other.weights[name].basis)
    assert not np.allclose(one.weights["decoder.q"].basis, one.weights["decoder.wi"].basis)


# --- to and from the wire ------------------------------------------------------------------------------------------


def test_updates_and_contributions_hold_the_same(weights: tuple[Weight, ...], make_update) -> None:
    """Arrays come through an update unchanged; a weight that was only sketched trains nothing."""
    board = fleet(weights, 12)[0]

    read = contribution(make_update(board.n_examples, board.b, board.sketches))

    assert read.n_examples == board.n_examples
    assert read.b.keys() == board.b.keys() == {"decoder.wi", "decoder.o"}
    assert read.sketches.keys() == board.sketches.keys() == {"decoder.q", "decoder.wi"}
    for name, b in board.b.items():
        np.testing.assert_array_equal(read.b[name], b)


def test_a_cut_holds_leading_rows(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """Boards get whole contexts and the first rows of each basis, in manifest order; rank 0 gets the context alone."""
    state = merge(state, total_of(fleet(weights, 13)), server_rank=SERVER_RANK, max_rank=MAX_RANK)

    parts = cut(state, (4, 0, 8), "fp32")

    assert [part.name for part in parts] == [w.name for w in weights]
    assert [part.basis.shape for part in parts] == [(4, 64), (0, 64), (8, 8)]
    for part in parts:
        weight = state.weights[part.name]
        np.testing.assert_array_equal(unpack(part.basis), weight.basis[: part.basis.shape[0]])
        np.testing.assert_array_equal(unpack(part.context_b), weight.context_b)
        np.testing.assert_array_equal(unpack(part.context_a), weight.context_a)
    for ranks in ((4, 0), (13, 0, 0), (0, -1, 0)):
        with pytest.raises(WireError):
            cut(state, ranks, "bf16")
