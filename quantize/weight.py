"""A frozen weight: stored small, handed out dense, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

CHUNK_VALUES = 1 << 20
"""Values that one step of packing or unpacking holds in full precision: 4 MiB, small beside any budget, and enough
that the loop costs nothing."""


class FrozenWeight(Protocol):
    """A matrix (rows, columns) of the frozen base in one of the formats. Immutable."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), which are (out, in) of a linear layer and (vocabulary, d_model) of an embedding."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    @property
    def resident_bytes(self) -> int:
        """Memory that it holds for as long as it lives."""

    def to(self, device: torch.device) -> FrozenWeight:
        """The same weight on `device`."""

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The whole matrix in `dtype` (fp32 or bf16), on every call anew and kept by nobody here.

        A dense format of the same dtype returns the stored tensor itself: never write to the result.
        """

    def dense_rows(self, rows: slice, dtype: torch.dtype) -> Tensor:
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

    def dense(self, dtype: torch.dtype) -> Tensor:
        return self.values.to(dtype)

    def dense_rows(self, rows: slice, dtype: torch.dtype) -> Tensor:
        return self.values[rows].to(dtype)

    def rows_of(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        return self.values[ids].to(dtype)


def row_chunks(rows: int, columns: int) -> list[slice]:
    """Slices over `rows` that hold at most CHUNK_VALUES values each, and at least one row."""
    step = max(1, CHUNK_VALUES // max(1, columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
