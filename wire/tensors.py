"""Numpy arrays to `Tensor` blocks and back: fp32, bf16, and int8 and int4 with one scale per QUANTISATION_BLOCK values.

Quantisation is symmetric: value ≈ q·scale with q in −127…127 or −7…7. `pack` keeps 16 significant bits of a scale
(rounded up, so that nothing is clipped): q·scale is then exact in float32, every machine unpacks the same bits, and
packing what was unpacked gives the same tensor again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.errors import WireError
from wire.fields import Dtype
from wire.limits import MAX_SIDE, MAX_TENSOR_VALUES, QUANTISATION_BLOCK
from wire.messages import Tensor

_LEVELS = {"int8": 127, "int4": 7}  # the largest q; −128 and −8 have no positive counterpart and are refused
_SCALE_LOW_BITS = np.uint32(0xFF)  # of float32's 24 significant bits the lowest 8 are dropped
_LARGEST_SAFE_SCALE = np.finfo(np.float32).max / 128  # times any code it is finite
_SMALLEST_SCALE = np.finfo(np.float32).tiny  # below it, a float32 has too few bits for the error bound to hold


def pack(array: NDArray[Any], dtype: Dtype) -> Tensor:
    """Round an array to the format of a message. Zeros stay exact, and the array is not changed.

    Args:
        array: (rows, columns), finite, any float dtype; it goes out row-major.
        dtype: bf16 rounds to nearest, ties to even. int8 and int4 are off by at most half a step; a step is the block's
            largest magnitude divided by 127 or 7, and up to 2^-15 of that more.

    Returns:
        The Tensor, with scales where `dtype` has them.

    Raises:
        WireError: for NaN, infinity (also one that rounding makes), another number of dimensions, or a shape beyond the
            limits.
    """
    if array.ndim != 2:
        raise WireError(f"tensor has {array.ndim} dimensions, 2 are needed")
    if array.size > MAX_TENSOR_VALUES or max(array.shape) > MAX_SIDE:
        limits = f"at most {MAX_SIDE} a side and {MAX_TENSOR_VALUES} values"
        raise WireError(f"tensor has shape {list(array.shape)}, {limits} are allowed")
    with np.errstate(over="ignore"):  # float64 beyond float32 turns into infinity, found by the next line
        values = np.ascontiguousarray(array, dtype=np.float32)
    _refuse_unless_finite(values, "tensor")
    data, scales = _encode_values(values.ravel(), dtype)
    return Tensor(dtype=dtype, shape=(array.shape[0], array.shape[1]), data=data, scales=scales)


def unpack(tensor: Tensor) -> NDArray[np.float32]:
    """Read the values of a message's tensor.

    Returns:
        (rows, columns) float32, read-only; perhaps a view of the tensor's bytes.

    Raises:
        WireError: for NaN or infinity, or a code or scale out of range.
    """
    values = _decoded_floats(tensor) if tensor.dtype in ("fp32", "bf16") else _dequantised(tensor)
    array = values.reshape(tensor.shape)
    array.flags.writeable = False
    return array


def _encode_values(values: NDArray[np.float32], dtype: Dtype) -> tuple[bytes, bytes]:
    if dtype == "fp32":
        return values.astype("<f4", copy=False).tobytes(), b""
    if dtype == "bf16":
        return _to_bf16(values).tobytes(), b""
    codes, scales = _quantise(values, _LEVELS[dtype])
    data = codes.tobytes() if dtype == "int8" else _pair_nibbles(codes).tobytes()
    return data, scales.astype("<f4", copy=False).tobytes()


def _decoded_floats(tensor: Tensor) -> NDArray[np.float32]:
    """Finite values (n,) of an fp32 or bf16 tensor, perhaps a view of its bytes."""
    if tensor.dtype == "fp32":
        values = np.frombuffer(tensor.data, "<f4").astype(np.float32, copy=False)
    else:  # a bf16 is the upper half of a float32
        values = (np.frombuffer(tensor.data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    _refuse_unless_finite(values, f"{tensor.dtype} tensor")
    return values


def _dequantised(tensor: Tensor) -> NDArray[np.float32]:
    """Finite values (n,) of an int8 or int4 tensor: each code times the scale of its block."""
    dtype, n_values = tensor.dtype, tensor.shape[0] * tensor.shape[1]
    codes = np.frombuffer(tensor.data, np.int8) if dtype == "int8" else _split_nibbles(tensor.data, n_values)
    if codes.size and int(codes.min()) < -_LEVELS[dtype]:
        raise WireError(f"{dtype} tensor holds {codes.min()}, codes run from -{_LEVELS[dtype]}")
    scales = np.frombuffer(tensor.scales, "<f4").astype(np.float32, copy=False)
    if np.signbit(scales).any():
        raise WireError(f"scales of {dtype} tensor hold a negative number")
    if scales.max(initial=0) <= _LARGEST_SAFE_SCALE:  # false for NaN too; the usual case needs no look at each value
        return _times_scales(codes.astype(np.float32), scales)
    _refuse_unless_finite(scales, f"scales of {dtype} tensor")
    with np.errstate(over="ignore"):  # found by the next line
        values = _times_scales(codes.astype(np.float32), scales)
    _refuse_unless_finite(values, f"{dtype} tensor")
    return values


def _times_scales(values: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (n,) times the scale of their block, in place: whole blocks as rows of a matrix, then what is left."""
    n_whole = values.size // QUANTISATION_BLOCK
    end = n_whole * QUANTISATION_BLOCK
    whole = values[:end].reshape(n_whole, QUANTISATION_BLOCK)
    whole *= scales[:n_whole, None]
    values[end:] *= scales[n_whole:]  # one scale, or none where nothing is left
    return values


def _to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    # Half of the lowest bit that stays, less one, plus that bit: a carry arises above the half, and at it where odd.
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    halves: NDArray[np.uint16] = (rounded >> np.uint32(16)).astype("<u2")
    if ((halves & 0x7FFF) == 0x7F80).any():
        raise WireError("tensor holds a value too large for bf16")
    return halves


def _quantise(values: NDArray[np.float32], levels: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes (n,) int8 and scales (blocks,) float32 of values (n,)."""
    n_blocks = -(-values.size // QUANTISATION_BLOCK)
    blocks = np.zeros((n_blocks, QUANTISATION_BLOCK), np.float32)
    blocks.reshape(-1)[: values.size] = values
    largest = np.abs(blocks).max(axis=1, initial=0)
    # A scale below the smallest normal number has too few bits; it is rounded up by clearing low bits, never down.
    step = np.maximum(largest / np.float32(levels), _SMALLEST_SCALE)
    rounded_up = ((step.view(np.uint32) + _SCALE_LOW_BITS) & ~_SCALE_LOW_BITS).view(np.float32)
    with np.errstate(over="ignore"):
        too_large = not np.isfinite(rounded_up * np.float32(levels)).all()
    if too_large:
        raise WireError("tensor holds a value too large to be quantised")
    codes = np.rint(blocks / rounded_up[:, None]).astype(np.int8)
    return codes.reshape(-1)[: values.size], np.where(largest > 0, rounded_up, np.float32(0))


def _pair_nibbles(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two codes a byte, low half first; the last half of an odd count is zero."""
    nibbles = np.zeros(codes.size + codes.size % 2, np.uint8)
    nibbles[: codes.size] = codes.view(np.uint8) & np.uint8(0x0F)
    pairs: NDArray[np.uint8] = nibbles[::2] | (nibbles[1::2] << np.uint8(4))
    return pairs


def _split_nibbles(data: bytes, n_values: int) -> NDArray[np.int8]:
    """Codes (n_values,) int8 of the bytes that `_pair_nibbles` made. Raises WireError if the padding is not zero."""
    pairs = np.frombuffer(data, np.uint8)
    nibbles = np.empty(2 * pairs.size, np.uint8)
    nibbles[::2], nibbles[1::2] = pairs & np.uint8(0x0F), pairs >> np.uint8(4)
    if nibbles[n_values:].any():
        raise WireError("padding of int4 tensor is not zero")
    codes = nibbles[:n_values].view(np.int8)
    signed: NDArray[np.int8] = (codes ^ np.int8(8)) - np.int8(8)  # two's complement of 4 bits: 8…15 mean −8…−1
    return signed


def _refuse_unless_finite(values: NDArray[np.float32], what: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise WireError(f"{what} holds {values.size - int(np.count_nonzero(finite))} NaN or infinite values")
