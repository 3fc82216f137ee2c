"""Whether the numbers of a base are numbers: a T5 that was trained in fp16 may hold NaN, and no board could use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import prod
from types import MappingProxyType

import numpy as np

from braid_common.base.files import BaseFilesError, unreadable
from braid_common.base.safetensors_header import StoredTensor

CHUNK_VALUES = 1 << 20
"""Values that are in memory at once: 8 MiB of the widest type."""

_EXPONENTS: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "F64": ("<u8", 0x7FF0_0000_0000_0000),
        "F32": ("<u4", 0x7F80_0000),
        "F16": ("<u2", 0x7C00),
        "BF16": ("<u2", 0x7F80),
    }
)
"""The bits of a float type's exponent, all of which are set in NaN and infinity alone (IEEE 754), as an integer of the
same width."""


def require_finite(tensors: Iterable[StoredTensor], read: Callable[[int], object] = lambda n_bytes: None) -> None:
    """Read every tensor of floats, a few million bytes at a time, and tell `read` how many they were.

    Raises BaseFilesError that names one with NaN or infinity.
    """
    for tensor in floats(tensors):
        if not _is_finite(tensor, read):
            raise BaseFilesError(
                f"{tensor.path}: {tensor.name} holds NaN or infinity, so no board could train on it; download the "
                "model again, or take another"
            )


def floats(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """Those of the tensors whose values could be NaN: codes of a quantised base are whole numbers."""
    return [tensor for tensor in tensors if tensor.dtype in _EXPONENTS]


def _is_finite(tensor: StoredTensor, read: Callable[[int], object]) -> bool:
    dtype, exponent = _EXPONENTS[tensor.dtype]
    left = prod(tensor.shape)
    try:
        with tensor.path.open("rb") as file:
            file.seek(tensor.offset_bytes)
            while left:
                values = np.fromfile(file, dtype, min(left, CHUNK_VALUES))
                if not values.size:
                    raise BaseFilesError(f"{tensor.path} became shorter while it was read: check the disk")
                if np.any((values & exponent) == exponent):
                    return False
                left -= values.size
                read(values.nbytes)
    except OSError as error:
        raise unreadable(tensor.path, error) from error
    return True
