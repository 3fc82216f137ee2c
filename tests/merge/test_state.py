"""The adapter's versions: immutable, and on disk exact or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.braid import merge, random_basis
from aggregator.merge.state import AdapterState, WeightState, decode_state, encode_state, initial_state
from aggregator.merge.sums import contribution, fold
from wire.errors import WireError
from wire.messages import Weight

FIELDS = ("context_b", "context_a", "basis", "values")
DAMAGED = encode_state(random_basis(initial_state([Weight(name="q", rows=6, columns=9)]), max_rank=3, seed=1))


def assert_identical(one: AdapterState, other: AdapterState) -> None:
    """The same version, names in the same order, and every bit of every array."""
    assert (one.version, one.ranked_at) == (other.version, other.ranked_at)
    assert list(one.weights) == list(other.weights)
    for name in one.weights:
        assert one.weights[name].score == other.weights[name].score
        for field in FIELDS:
            a, b = getattr(one.weights[name], field), getattr(other.weights[name], field)
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), (name, field)


def test_version_0_is_the_bare_base(weights: tuple[Weight, ...]) -> None:
    """Rank-0 contexts of the right shape, no basis, manifest order."""
    state = initial_state(weights)

    assert state.version == 0
    assert list(state.weights) == [w.name for w in weights]
    for weight in weights:
        held = state.weights[weight.name]
        assert held.shape == (weight.rows, weight.columns)
        assert held.context_b.shape[1] == held.basis.shape[0] == len(held.values) == 0


def test_states_survive_the_disk_bit_for_bit(weights: tuple[Weight, ...], state: AdapterState, make_update) -> None:
    """Versions 0, 1 and one with contexts and values come back exactly; equal states give equal bytes."""
    rng = np.random.default_rng(0)
    update = make_update(
        3,
        {w.name: rng.standard_normal((w.rows, 4)) for w in weights},
        {w.name: rng.standard_normal((min(12, w.rows, w.columns), w.columns)) for w in weights},
    )
    merged = merge(state, fold(None, contribution(update)), server_rank=6, max_rank=12)

    for one in (initial_state(weights), state, merged):
        assert_identical(decode_state(encode_state(one)), one)
        assert encode_state(decode_state(encode_state(one))) == encode_state(one)


@given(st.integers(0, len(DAMAGED) - 1), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_any_changed_byte_is_seen(place: int, change: int) -> None:
    """One flipped byte anywhere, arrays included, gives WireError."""
    data = bytearray(DAMAGED)
    data[place] ^= change

    with pytest.raises(WireError):
        decode_state(bytes(data))


@pytest.mark.parametrize("length", range(0, len(DAMAGED), 7))
def test_a_cut_file_is_seen(length: int) -> None:
    """Cut anywhere, or with bytes after it: WireError."""
    with pytest.raises(WireError):
        decode_state(DAMAGED[:length])
    with pytest.raises(WireError):
        decode_state(DAMAGED + b"x")


def test_a_state_of_the_format_before_is_told_apart() -> None:
    """Not damaged, but of an older program: the sentence says what to do."""
    with pytest.raises(WireError, match="older Braid"):
        decode_state(DAMAGED.replace(b"braid-state-2", b"braid-state-1", 1))


def test_arrays_cannot_be_changed(state: AdapterState) -> None:
    """Neither arrays nor the mapping of a state can be written; the caller's own array stays writable."""
    basis = np.eye(2, 3, dtype=np.float32)
    weight = WeightState(
        context_b=np.zeros((4, 0), np.float32), context_a=np.zeros((0, 3), np.float32), basis=basis, values=np.ones(2)
    )

    with pytest.raises(ValueError, match="read-only"):
        weight.basis[0, 0] = 1
    with pytest.raises(TypeError):
        state.weights["decoder.q"] = weight  # type: ignore[index]
    basis[0, 0] = 2


def test_shapes_must_fit_each_other() -> None:
    """A context whose factors disagree, a value too many, or a wrong dtype is refused at once."""
    good = {
        "context_b": np.zeros((4, 2), np.float32),
        "context_a": np.zeros((2, 3), np.float32),
        "basis": np.zeros((1, 3), np.float32),
        "values": np.zeros(1),
    }
    wrong = {
        "context_b": np.zeros((4, 1), np.float32),
        "context_a": np.zeros((2, 3)),
        "basis": np.zeros((1, 4), np.float32),
        "values": np.zeros(2),
    }

    WeightState(**good)
    for field, array in wrong.items():
        with pytest.raises(ValueError, match=r"fit|needed"):
            WeightState(**{**good, field: array})
