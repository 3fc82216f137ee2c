"""pack and unpack: bounds of each dtype's error, exactness where it is promised, and refusals."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from wire.codec import decode, encode
from wire.errors import WireError
from wire.fields import Dtype
from wire.limits import MAX_SIDE, MAX_TENSOR_VALUES, QUANTISATION_BLOCK
from wire.messages import Tensor
from wire.tensors import pack, unpack

DTYPES: list[Dtype] = ["fp32", "bf16", "int8", "int4"]
LEVELS = {"int8": 127, "int4": 7}
F32 = NDArray[np.float32]

shapes = st.tuples(st.integers(0, 9), st.integers(0, 150))
matrices = arrays(np.float32, shapes, elements=st.floats(-(2.0**120), 2.0**120, width=32))


def blocks_of(array: F32) -> list[F32]:
    """The runs of consecutive row-major values that share a scale."""
    flat = array.ravel()
    return [flat[i : i + QUANTISATION_BLOCK] for i in range(0, flat.size, QUANTISATION_BLOCK)]


@given(matrices, st.sampled_from(DTYPES))
def test_any_finite_matrix_travels(array: F32, dtype: Dtype) -> None:
    """Shape is kept, zeros stay exact, the result is read-only, the argument is not changed, packing again is exact."""
    before = array.copy()

    tensor = pack(array, dtype)
    values = unpack(decode(encode(tensor), Tensor))

    assert np.array_equal(array, before)
    assert (values.shape, values.dtype, values.flags.writeable) == (array.shape, np.dtype(np.float32), False)
    assert not values[array == 0].any()
    assert pack(values, dtype) == tensor or dtype in LEVELS  # −0 and 0 share a code, and so may differ below
    assert np.array_equal(unpack(pack(values, dtype)), values)


@given(matrices)
def test_fp32_is_exact(array: F32) -> None:
    """Not a bit changes, signs of zeros included."""
    assert unpack(pack(array, "fp32")).tobytes() == array.tobytes()


@given(matrices)
def test_bf16_rounds_to_the_nearest_even(array: F32) -> None:
    """Each value goes to the closer of its two neighbours of 16 bits; a tie goes to the even one."""
    values = unpack(pack(array, "bf16"))

    bits = array.view(np.uint32).astype(np.uint64)
    below, rest = bits >> 16, bits & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (below % 2 == 1))
    assert np.array_equal(values.view(np.uint32), ((below + up) << 16).astype(np.uint32))


@given(matrices, st.sampled_from(["int8", "int4"]))
def test_quantised_error_is_at_most_half_a_step(array: F32, dtype: Dtype) -> None:
    """Per block: |x − x̂| ≤ step/2, where a step is the largest magnitude / levels, plus 2^-15 of it at most."""
    values = unpack(pack(array, dtype))

    for block, restored in zip(blocks_of(array), blocks_of(values), strict=True):
        largest = float(np.abs(block).max())
        step = max(largest / LEVELS[dtype] * (1 + 2**-15), 2.0**-126) if largest else 0.0
        error = np.abs(block.astype(np.float64) - restored.astype(np.float64)).max()
        assert error <= step / 2 * (1 + 1e-6)


@given(st.data(), st.sampled_from(["int8", "int4"]))
def test_values_on_the_grid_are_exact(data: st.DataObject, dtype: Dtype) -> None:
    """Where a block's values are q·step for a step of 16 bits, and its largest q is the last level, nothing is lost."""
    levels, count = LEVELS[dtype], data.draw(st.integers(1, QUANTISATION_BLOCK))
    codes = data.draw(arrays(np.int64, count, elements=st.integers(-levels, levels)))
    codes[data.draw(st.integers(0, count - 1))] = data.draw(st.sampled_from([-levels, levels]))
    step = data.draw(st.integers(1, 2**16 - 1)) * 2.0 ** data.draw(st.integers(-120, 90))
    array = (codes * step).astype(np.float32).reshape(1, -1)

    assert np.array_equal(unpack(pack(array, dtype)), array)


def test_scales_follow_row_major_blocks() -> None:
    """A block runs over row ends: one huge value blurs its 64 neighbours and nobody else."""
    array = np.full((4, 40), np.float32(0.5))
    array[1, 30] = 1000  # value 70, in block 64…127

    values = unpack(pack(array, "int4")).ravel()

    assert set(np.flatnonzero(values == 0)) == set(range(64, 128)) - {70}


def test_column_order_does_not_matter() -> None:
    """A transposed view packs like its row-major copy; float64 and float16 are taken as well."""
    array = np.arange(12, dtype=np.float64).reshape(3, 4).T

    for dtype in DTYPES:
        assert pack(array, dtype) == pack(np.ascontiguousarray(array), dtype) == pack(array.astype(np.float16), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_not_finite_is_not_packed(dtype: Dtype, bad: float) -> None:
    """NaN, infinity, and numbers that float32 cannot hold are refused with their count."""
    array = np.zeros((2, 3))
    array[1, 2] = bad

    with pytest.raises(WireError, match="holds 1 NaN or infinite"):
        pack(array, dtype)


@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
def test_what_rounding_makes_infinite_is_not_packed(dtype: Dtype) -> None:
    """The largest float32 is finite, but not after rounding up."""
    largest = np.full((1, 1), np.finfo(np.float32).max)

    with pytest.raises(WireError, match="too large"):
        pack(largest, dtype)


@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 1)])
def test_only_matrices_are_packed(shape: tuple[int, ...]) -> None:
    """Tensors on the wire have two dimensions."""
    with pytest.raises(WireError, match="2 are needed"):
        pack(np.zeros(shape), "fp32")


@pytest.mark.parametrize("shape", [(2**13, 2**12 + 1), (0, MAX_SIDE + 1), (MAX_SIDE + 1, 1)])
def test_size_limits_hold_for_senders(shape: tuple[int, int]) -> None:
    """Too many values, or too long a side, is refused before memory is taken (this array is one number, repeated)."""
    with pytest.raises(WireError, match=f"at most {MAX_SIDE} a side and {MAX_TENSOR_VALUES} values"):
        pack(np.broadcast_to(np.float32(0), shape), "int8")


@pytest.mark.parametrize(
    ("dtype", "data", "scales"),
    [
        ("fp32", struct.pack("<f", np.nan), b""),
        ("fp32", struct.pack("<f", -np.inf), b""),
        ("bf16", b"\x80\x7f", b""),
        ("bf16", b"\xc0\xff", b""),
        ("int8", b"\x01", struct.pack("<f", np.inf)),
        ("int8", b"\x00", struct.pack("<f", np.nan)),
        ("int8", b"\x7f", struct.pack("<f", 3e38)),
        ("int4", b"\x07", struct.pack("<f", 3e38)),
    ],
)
def test_not_finite_is_not_unpacked(dtype: Dtype, data: bytes, scales: bytes) -> None:
    """A NaN or infinity in the data, in a scale, or that their product makes, is refused."""
    with pytest.raises(WireError, match="NaN or infinite"):
        unpack(Tensor(dtype=dtype, shape=(1, 1), data=data, scales=scales))


@pytest.mark.parametrize(
    ("dtype", "data", "scale", "said"),
    [
        ("int8", b"\x80", 1.0, "int8 tensor holds -128, codes run from -127"),
        ("int4", b"\x08", 1.0, "int4 tensor holds -8, codes run from -7"),
        ("int4", b"\x11", 1.0, "padding of int4 tensor is not zero"),
        ("int8", b"\x01", -1.0, "negative"),
        ("int8", b"\x01", -0.0, "negative"),
    ],
)
def test_one_value_has_one_code(dtype: Dtype, data: bytes, scale: float, said: str) -> None:
    """Codes without a positive counterpart, set padding bits and negative scales are refused."""
    with pytest.raises(WireError, match=said):
        unpack(Tensor(dtype=dtype, shape=(1, 1), data=data, scales=struct.pack("<f", scale)))


def test_every_int4_byte_is_read_low_half_first() -> None:
    """All 256 bytes: each half is a two's complement number from −7 to 7, or refused."""
    for byte in range(256):
        tensor = Tensor(dtype="int4", shape=(1, 2), data=bytes([byte]), scales=struct.pack("<f", 1))
        halves = [(half ^ 8) - 8 for half in (byte & 15, byte >> 4)]
        if -8 in halves:
            with pytest.raises(WireError, match="-8"):
                unpack(tensor)
        else:
            assert unpack(tensor).tolist() == [halves]
