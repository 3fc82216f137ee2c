"""The default merge rule against the dense float64 reference, and the invariants that docs/concepts/merging.md
lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregator.merge.bases import random_basis
from aggregator.merge.contribution import contribution, profile_contribution
from aggregator.merge.rules import RULES
from aggregator.merge.rules.braid import cut, first_basis, fold, merge
from aggregator.merge.state import AdapterState, Factors, initial_state, strand_values
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import BasisSum, Contribution
from tests.reference import braid as reference
from wire.manifest import manifest_digest
from wire.messages import NamedTensor, Profile, Update, UpdatePart
from wire.run import Weight
from wire.tensors import pack, unpack

MAX_RANK = 12
SETTINGS = MergeSettings(server_rank=10, max_rank=MAX_RANK)
AMPLE = MergeSettings(server_rank=MAX_RANK, max_rank=MAX_RANK)


def product(state: AdapterState, name: str) -> np.ndarray:
    """W_g (m, n) in float64."""
    weight = state.weights[name]
    return weight.frozen_b.astype(np.float64) @ weight.frozen_a


def on_basis(state: AdapterState, b: dict[str, np.ndarray]) -> dict[str, Factors]:
    """Strands of these B (m, r) on the leading rows of the state's bases."""
    return {
        name: Factors(array.astype(np.float32), state.weights[name].basis[: array.shape[1]])
        for name, array in b.items()
    }


def with_b(board: Contribution, factor: float) -> Contribution:
    """The board with `factor` times its B."""
    strands = {name: Factors(factor * one.b, one.a) for name, one in board.strands.items()}
    return replace(board, strands=strands)


def fleet(state: AdapterState, seed: int) -> list[Contribution]:
    """Four boards of unequal rank and example count; each leaves out another weight, one only sketches."""
    rng = np.random.default_rng(seed)
    boards = []
    for i, (n_examples, rank) in enumerate([(3, 2), (50, 8), (7, 5), (200, 1)]):
        trained = {name: weight for j, (name, weight) in enumerate(state.weights.items()) if j != i}
        b = {name: rng.standard_normal((w.shape[0], min(rank, w.shape[1]))) for name, w in trained.items()}
        sketches = {
            name: rng.standard_normal(weight.basis.shape).astype(np.float32)
            for name, weight in state.weights.items()
            if i % 2 == 0 and name != "decoder.o"
        }
        boards.append(Contribution(weight=n_examples, strands=on_basis(state, b), sketches=sketches))
    return boards


def total_of(boards: list[Contribution]) -> BasisSum:
    total = None
    for board in boards:
        total = fold(total, board)
    assert total is not None
    return total


# --- the rule itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [1.0, 0.7])
def test_five_rounds_equal_the_dense_reference(state: AdapterState, eta: float) -> None:
    """Unequal ranks, boards that train different weights, non-square shapes: adapters, bases and values agree."""
    dense = {name: np.zeros(weight.shape) for name, weight in state.weights.items()}

    for round_id in range(5):
        boards = fleet(state, round_id)
        n_examples = round(sum(board.weight for board in boards))
        before = state
        state = merge(state, total_of(boards), replace(SETTINGS, eta=eta))

        for name in dense:
            basis = before.weights[name].basis.astype(np.float64)
            sent = [(round(one.weight), one.strands[name].b if name in one.strands else None) for one in boards]
            dense[name] = reference.merged(dense[name], basis, sent, SETTINGS.server_rank, eta)
            np.testing.assert_allclose(product(state, name), dense[name], atol=2e-6 * np.linalg.norm(dense[name]))
            sketches = [(round(board.weight), board.sketches[name]) for board in boards if name in board.sketches]
            if sketches:
                rows = len(state.weights[name].basis)
                projector, squares = reference.strands(sketches, n_examples, rows)
                new = state.weights[name].basis.astype(np.float64)
                np.testing.assert_allclose(new.T @ new, projector, atol=1e-6)
                np.testing.assert_allclose(state.weights[name].values, squares, rtol=1e-9)


def test_a_board_that_trains_nothing_counts_as_one_that_sends_zeros(state: AdapterState) -> None:
    """The mean is over the whole cohort: the same bits."""
    trained = fleet(state, 2)[1]
    absent, zeros = Contribution(weight=50, sketches=trained.sketches), with_b(trained, 0)

    one, other = (merge(state, total_of([trained, rests]), AMPLE) for rests in (absent, zeros))

    for name in trained.strands:
        np.testing.assert_array_equal(product(one, name), product(other, name))


# --- invariants ----------------------------------------------------------------------------------------------------


def test_boards_that_send_zeros_change_nothing(state: AdapterState) -> None:
    """Twenty no-op rounds with a new basis each leave every W_g bit for bit as it was."""
    state = merge(state, total_of(fleet(state, 3)), SETTINGS)
    start = state

    for round_id in range(20):
        before = state
        state = merge(state, total_of([with_b(board, 0) for board in fleet(state, 100 + round_id)]), SETTINGS)
        assert not np.array_equal(state.weights["decoder.q"].basis, before.weights["decoder.q"].basis)

    assert state.version == start.version + 20
    for name, weight in state.weights.items():
        assert weight.frozen_b.any()
        assert weight.frozen_b.tobytes() == start.weights[name].frozen_b.tobytes()
        assert weight.frozen_a.tobytes() == start.weights[name].frozen_a.tobytes()


def test_truncating_again_and_again_does_not_drift(state: AdapterState) -> None:
    """Twenty rounds of a B that is not quite zero, so that every context is factored anew: less than 1e-6 is lost."""
    state = merge(state, total_of(fleet(state, 4)), SETTINGS)
    start = {name: product(state, name) for name in state.weights}
    tiny = {name: np.full((w.shape[0], 1), 1e-12) for name, w in state.weights.items()}

    for _ in range(20):
        state = merge(state, fold(None, Contribution(weight=1, strands=on_basis(state, tiny))), SETTINGS)

    for name, w in start.items():
        assert np.linalg.norm(product(state, name) - w) <= 1e-6 * np.linalg.norm(w)


def test_boards_that_cancel_out_change_nothing(state: AdapterState) -> None:
    """+B and −B from boards of equal weight sum to zero exactly, and zero keeps every context bit for bit."""
    board = fleet(state, 3)[1]
    start = merge(state, total_of([board]), SETTINGS)

    after = merge(start, total_of([board, with_b(board, -1)]), SETTINGS)

    for name, weight in after.weights.items():
        assert weight.frozen_b.tobytes() == start.weights[name].frozen_b.tobytes()
        assert weight.frozen_a.tobytes() == start.weights[name].frozen_a.tobytes()


def test_a_sum_does_not_grow_with_the_fleet(state: AdapterState) -> None:
    """A hundred boards take the memory of the widest one."""
    boards = fleet(state, 8)

    total = total_of(boards * 25)

    assert total.n_updates == 100
    for name, b in total.b.items():
        assert b.shape[1] == max(board.strands[name].b.shape[1] for board in boards if name in board.strands)
    with pytest.raises(TypeError):
        total.b["decoder.q"] = np.zeros((1, 1))  # type: ignore[index]


def test_zero_and_duplicate_sketch_directions_get_random_rows(state: AdapterState) -> None:
    """A sketch of rank 2 gives two valued strands; the others are random, orthonormal, not axis-aligned, value 0."""
    rng = np.random.default_rng(9)
    deficient = np.tile(rng.standard_normal((2, 64)), (6, 1)).astype(np.float32)
    sketches = {"decoder.q": deficient, "decoder.wi": np.zeros((12, 64), np.float32)}

    merged = merge(state, fold(None, Contribution(weight=4, sketches=sketches)), SETTINGS)

    for name, significant in (("decoder.q", 2), ("decoder.wi", 0)):
        weight = merged.weights[name]
        assert (weight.values > 0).sum() == significant
        assert (np.diff(weight.values) <= 0).all()
        np.testing.assert_allclose(weight.basis @ weight.basis.T, np.eye(MAX_RANK), atol=1e-5)
        assert np.abs(weight.basis[significant:]).max() < 0.9
    assert merged.weights["decoder.o"] is state.weights["decoder.o"]


def test_a_sum_that_does_not_fit_is_refused(state: AdapterState) -> None:
    """A renamed weight, a rank beyond the basis or a transposed B is an error that names it, never skipped."""
    for name, b, named in (
        ("decoder.Q", np.ones((48, 2)), "decoder.Q"),
        ("decoder.q", np.ones((48, 13)), "basis"),
        ("decoder.q", np.ones((64, 2)), "basis"),
    ):
        strands = {name: Factors(b.astype(np.float32), np.ones((b.shape[1], 64), np.float32))}
        with pytest.raises(ValueError, match=named):
            merge(state, fold(None, Contribution(weight=1, strands=strands)), SETTINGS)


# --- the first basis -----------------------------------------------------------------------------------------------


def test_the_first_basis_comes_from_profiles(weights: tuple[Weight, ...]) -> None:
    """Version 1 holds the strands of the profiles, by value; a weight that nobody reached gets random ones, value 0."""
    rng = np.random.default_rng(11)
    reached = [w for w in weights if w.name != "decoder.o"]
    arrays = [{w.name: rng.standard_normal((MAX_RANK, w.columns)).astype(np.float32) for w in reached} for _ in (1, 2)]
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
    for name in (w.name for w in reached):
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


def test_updates_and_contributions_hold_the_same(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """Arrays come through an update unchanged; a weight that was only sketched trains nothing."""
    board = fleet(state, 12)[0]
    parts = tuple(
        UpdatePart(
            name=name,
            b=pack(board.strands[name].b if name in board.strands else np.zeros((weight.shape[0], 0)), "fp32"),
            sketch=pack(board.sketches[name], "fp32") if name in board.sketches else None,
        )
        for name, weight in state.weights.items()
    )
    update = Update(
        protocol=1, run_id="run", round=1, version=1, manifest=manifest_digest(weights), n_examples=3, parts=parts
    )

    read = contribution(update, RULES["braid"], state, "fp32")

    assert read.weight == board.weight == 3
    assert read.strands.keys() == board.strands.keys() == {"decoder.wi", "decoder.o"}
    assert read.sketches.keys() == board.sketches.keys() == {"decoder.q", "decoder.wi"}
    assert not read.start
    for name, strand in board.strands.items():
        np.testing.assert_array_equal(read.strands[name].b, strand.b)
        np.testing.assert_array_equal(read.strands[name].a, strand.a)


def test_a_cut_holds_leading_rows(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """Boards get whole adapters and the first rows of each basis, in manifest order; rank 0 gets the adapter alone."""
    state = merge(state, total_of(fleet(state, 13)), SETTINGS)

    parts = cut(state, (4, 0, 8), "fp32")

    assert [part.name for part in parts] == [w.name for w in weights]
    assert [part.basis.shape for part in parts] == [(4, 64), (0, 64), (8, 8)]
    for part in parts:
        weight = state.weights[part.name]
        np.testing.assert_array_equal(unpack(part.basis), weight.basis[: part.basis.shape[0]])
        np.testing.assert_array_equal(unpack(part.frozen_b), weight.frozen_b)
        np.testing.assert_array_equal(unpack(part.frozen_a), weight.frozen_a)
