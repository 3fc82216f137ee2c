"""The adapter's versions: immutable, and on disk exact or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.bases import random_basis
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.rules.braid import fold, merge
from aggregator.merge.state import (
    AdapterState,
    Factors,
    Moments,
    WeightState,
    decode_state,
    encode_state,
    initial_state,
)
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from wire.errors import WireError
from wire.run import Weight

FIELDS = ("frozen_b", "frozen_a", "basis", "values")
DAMAGED = encode_state(random_basis(initial_state([Weight(name="q", rows=6, columns=9)]), max_rank=3, seed=1))


def assert_identical(one: AdapterState, other: AdapterState) -> None:
    """The same version, names in the same order, and every bit of every array."""
    assert (one.version, one.ranked_at) == (other.version, other.ranked_at)
    assert list(one.weights) == list(other.weights)
    for name, weight in one.weights.items():
        assert weight.score == other.weights[name].score
        mine, theirs = arrays(weight), arrays(other.weights[name])
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name


def arrays(weight: WeightState) -> list[np.ndarray]:
    moments = weight.moments
    held = [] if moments is None else [moments.first.b, moments.first.a, moments.second]
    return [*(getattr(weight, field) for field in FIELDS), *(array for array in held if array is not None)]


def test_version_0_is_the_bare_base(weights: tuple[Weight, ...]) -> None:
    """Rank-0 frozen factors of the right shape, no basis, manifest order."""
    state = initial_state(weights)

    assert state.version == 0
    assert list(state.weights) == [w.name for w in weights]
    for weight in weights:
        held = state.weights[weight.name]
        assert held.shape == (weight.rows, weight.columns)
        assert held.frozen_b.shape[1] == held.basis.shape[0] == len(held.values) == 0


def trained(weights: tuple[Weight, ...], state: AdapterState, optimiser: str) -> AdapterState:
    """The version after a round in which one board trained and sketched every weight but the last."""
    rng = np.random.default_rng(0)
    update = Contribution(
        weight=3.0,
        strands={
            w.name: Factors(rng.standard_normal((w.rows, 4)).astype(np.float32), state.weights[w.name].basis[:4])
            for w in weights[:-1]
        },
        sketches={
            w.name: rng.standard_normal((min(12, w.rows, w.columns), w.columns)).astype(np.float32)
            for w in weights[:-1]
        },
    )
    settings = MergeSettings(server_rank=6, max_rank=12, optimiser=OPTIMISERS[optimiser])
    return merge(state, fold(None, update), settings)


def test_states_survive_the_disk_bit_for_bit(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """Versions 0, 1 and those after a round come back exactly, an optimiser's moments too; equal states give equal
    bytes."""
    after = [trained(weights, state, optimiser) for optimiser in OPTIMISERS]

    for one in (initial_state(weights), state, *after):
        assert_identical(decode_state(encode_state(one)), one)
        assert encode_state(decode_state(encode_state(one))) == encode_state(one)


def test_an_optimiser_goes_on_from_the_disk_bit_for_bit(weights: tuple[Weight, ...], state: AdapterState) -> None:
    """The round after a restart gives the same bytes as without one."""
    for optimiser in OPTIMISERS:
        once = trained(weights, state, optimiser)

        without, restarted = (trained(weights, one, optimiser) for one in (once, decode_state(encode_state(once))))

        assert encode_state(without) == encode_state(restarted)


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


@pytest.mark.parametrize("older", [b"braid-state-1", b"braid-state-2", b"braid-state-3"])
def test_a_state_of_a_format_before_is_told_apart(older: bytes) -> None:
    """Not damaged, but of another format: the sentence says so."""
    assert DAMAGED.startswith(b"braid-state-4\n")
    with pytest.raises(WireError, match="no adapter state of a format"):
        decode_state(DAMAGED.replace(b"braid-state-4", older, 1))


def test_arrays_cannot_be_changed(state: AdapterState) -> None:
    """Neither arrays nor the mapping of a state can be written; the caller's own array stays writable."""
    basis = np.eye(2, 3, dtype=np.float32)
    weight = WeightState(
        frozen_b=np.zeros((4, 0), np.float32), frozen_a=np.zeros((0, 3), np.float32), basis=basis, values=np.ones(2)
    )

    with pytest.raises(ValueError, match="read-only"):
        weight.basis[0, 0] = 1
    with pytest.raises(TypeError):
        state.weights["decoder.q"] = weight  # type: ignore[index]
    basis[0, 0] = 2


def test_moments_cannot_be_changed() -> None:
    """As with a state's arrays; the caller's own stay writable."""
    b, a, second = np.zeros((4, 1), np.float32), np.zeros((1, 3), np.float32), np.ones((4, 3), np.float32)
    moments = Moments(Factors(b, a), second)

    for array in (moments.first.b, moments.first.a, moments.second):
        assert array is not None and not array.flags.writeable
    b[0] = a[0, 0] = second[0] = 2


def test_moments_must_fit_each_other_and_the_weight() -> None:
    """Of two ranks, in float64, squares of another shape, or of another weight: refused at once."""
    b, a = np.zeros((4, 2), np.float32), np.zeros((2, 3), np.float32)
    for first, second in (
        (Factors(b, a[:1]), None),
        (Factors(b.astype(np.float64), a), None),  # type: ignore[arg-type]
        (Factors(b, a), np.ones((3, 4), np.float32)),
        (Factors(b, a), np.ones((4, 3))),
    ):
        with pytest.raises(ValueError, match="moment"):
            Moments(first, second)
    with pytest.raises(ValueError, match="moments of shape"):
        WeightState(
            frozen_b=np.zeros((3, 0), np.float32),
            frozen_a=np.zeros((0, 4), np.float32),
            basis=np.zeros((0, 4), np.float32),
            values=np.zeros(0),
            moments=Moments(Factors(b, a)),
        )


def test_shapes_must_fit_each_other() -> None:
    """A context whose factors disagree, a value too many, or a wrong dtype is refused at once."""
    good = {
        "frozen_b": np.zeros((4, 2), np.float32),
        "frozen_a": np.zeros((2, 3), np.float32),
        "basis": np.zeros((1, 3), np.float32),
        "values": np.zeros(1),
    }
    wrong = {
        "frozen_b": np.zeros((4, 1), np.float32),
        "frozen_a": np.zeros((2, 3)),
        "basis": np.zeros((1, 4), np.float32),
        "values": np.zeros(2),
    }

    WeightState(**good)
    for field, array in wrong.items():
        with pytest.raises(ValueError, match=r"fit|needed"):
            WeightState(**{**good, field: array})
