"""A frozen weight: stored small, handed out dense, one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from braid_common.base.weights import BLOCK_VALUES

CPU = torch.device("cpu")

CHUNK_VALUES = 1 << 18
"""Values that one step of packing or unpacking holds in full precision: 1 MiB, which stays in a processor's cache, and
enough that the loop costs nothing."""


class Scratch:
    """Memory that one unpacked matrix after the other is written into, so that none is allocated for each.

    Freed and taken again between tensors that stay, matrices of 20 MiB left a heap full of holes (600 MiB of them with
    FLAN-T5-xl's shape), and the kernel cleared their pages again and again. For one thread.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def take(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A matrix of any content. It is the same memory as the one taken before, whose use must be over."""
        n_values = shape[0] * shape[1]
        buffer = self._buffers.get((dtype, device))
        if buffer is None or len(buffer) < n_values:
            buffer = self._buffers[dtype, device] = torch.empty(n_values, dtype=dtype, device=device)
        return buffer[:n_values].view(shape)


def taken(scratch: Scratch | None, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for a matrix: the scratch's if there is one, else new."""
    return torch.empty(shape, dtype=dtype, device=device) if scratch is None else scratch.take(shape, dtype, device)


class FrozenWeight(Protocol):
    """A matrix (rows, columns) of the frozen base in one of the formats. Immutable."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), which are (out, in) of a linear layer and (vocabulary, d_model) of an embedding."""

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""

    @property
    def resident_bytes(self) -> int:
        """Memory that it holds for as long as it lives."""

    def to(self, device: torch.device) -> FrozenWeight:
        """The same weight on `device`."""

    def dense(self, dtype: torch.dtype, scratch: Scratch | None = None) -> Tensor:
        """The whole matrix in `dtype` (fp32 or bf16), on every call anew and kept by nobody here; in `scratch`,
        where it lives until that is used again.

        A dense format of the same dtype returns the stored tensor itself: never write to the result.
        """

    def dense_rows(self, rows: slice, dtype: torch.dtype, scratch: Scratch | None = None) -> Tensor:
        """Rows start…stop − 1 as `dense` would give them, (stop − start, columns). Never write to the result."""

    def rows_of(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows `ids` (any shape, int64) in `dtype`, shape (*ids.shape, columns), without unpacking the others.

        Raises IndexError where an id is outside 0…rows − 1.
        """


@dataclass(frozen=True, eq=False)
class DenseWeight:
    """Values as they are, fp32 or bf16."""

    values: Tensor  # (rows, columns)

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def resident_bytes(self) -> int:
        return self.values.nbytes

    def to(self, device: torch.device) -> DenseWeight:
        return DenseWeight(self.values.to(device))

    def dense(self, dtype: torch.dtype, scratch: Scratch | None = None) -> Tensor:
        if self.values.dtype == dtype:
            return self.values
        return taken(scratch, self.shape, dtype, self.device).copy_(self.values)

    def dense_rows(self, rows: slice, dtype: torch.dtype, scratch: Scratch | None = None) -> Tensor:
        return DenseWeight(self.values[rows]).dense(dtype, scratch)

    def rows_of(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        return self.values[ids].to(dtype)


Chunks = Iterator[Tensor]
"""A matrix as consecutive rows in fp32, divided by `row_chunks`. Whoever takes a chunk may write to it, and is done
before it asks for the next."""


def largest_magnitudes(chunk: Tensor) -> Tensor:
    """max|row| of each row, without a copy of the chunk. torch.aminmax takes twenty times as long (341 × 768)."""
    return torch.maximum(chunk.amax(1).abs(), chunk.amin(1).abs())


def dense_of_chunks(shape: tuple[int, int], chunks: Chunks, dtype: torch.dtype) -> DenseWeight:
    """A matrix in `dtype`."""
    values = torch.empty(shape, dtype=dtype)
    first = 0
    for chunk in chunks:
        values[first : first + len(chunk)] = chunk
        first += len(chunk)
    return DenseWeight(values)


def row_chunks(rows: int, columns: int) -> list[slice]:
    """Slices over `rows` that hold about CHUNK_VALUES values each, at least one row, and all but the last whole blocks
    of BLOCK_VALUES, so that a matrix may be packed chunk by chunk in any format."""
    whole = BLOCK_VALUES // math.gcd(BLOCK_VALUES, columns) if columns else 1
    step = max(1, CHUNK_VALUES // max(1, columns) // whole) * whole
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def matrix_chunks(values: Tensor) -> Chunks:
    """The rows of a matrix of any float dtype."""
    return (values[rows].to(torch.float32, copy=True) for rows in row_chunks(*values.shape))
