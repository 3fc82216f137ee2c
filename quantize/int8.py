"""Weight-only int8: one fp32 scale per row, symmetric, nearest. Activations stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quantize.weight import Chunks, Scratch, largest_magnitudes, matrix_chunks, row_chunks, taken

LEVELS = 127
"""Largest code; −128 is left out so that the grid is symmetric."""


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """value[i, j] = codes[i, j] · scales[i]."""

    codes: Tensor  # (rows, columns) int8
    scales: Tensor  # (rows,) float32

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def resident_bytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    def to(self, device: torch.device) -> Int8Weight:
        return Int8Weight(self.codes.to(device), self.scales.to(device))

    def dense(self, dtype: torch.dtype, scratch: Scratch | None = None) -> Tensor:
        out = taken(scratch, self.shape, dtype, self.device)
        if dtype == torch.float32:
            return out.copy_(self.codes).mul_(self.scales[:, None])
        for rows in row_chunks(*self.shape):  # the product is formed in fp32, so only one chunk of it may exist
            out[rows] = self.codes[rows] * self.scales[rows, None]
        return out

    def dense_rows(self, rows: slice, dtype: torch.dtype, scratch: Scratch | None = None) -> Tensor:
        return Int8Weight(self.codes[rows], self.scales[rows]).dense(dtype, scratch)

    def rows_of(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        return (self.codes[ids] * self.scales[ids][..., None]).to(dtype)


def to_int8(values: Tensor) -> Int8Weight:
    """Round a matrix to int8 with one scale per row. No copy of it in full precision is made.

    Args:
        values: (rows, columns) of any float dtype, finite.

    Returns:
        Codes and scales. The error of a value is at most scale/2, scale = max|row|/127; a row of zeros stays zero.
    """
    rows, columns = values.shape
    return int8_of_chunks((rows, columns), matrix_chunks(values))


def int8_of_chunks(shape: tuple[int, int], chunks: Chunks) -> Int8Weight:
    """Round as `to_int8` a matrix (rows, columns) that comes a few rows at a time; the chunks are overwritten."""
    codes = torch.empty(shape, dtype=torch.int8)
    scales = torch.empty(shape[0], dtype=torch.float32)
    first = 0
    for chunk in chunks:
        rows = slice(first, first + len(chunk))
        first = rows.stop
        scale = largest_magnitudes(chunk) / LEVELS
        scales[rows] = scale
        # A row of zeros has scale 0: divided by the smallest normal number instead, it stays zero and makes no NaN.
        steps = chunk.div_(scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None])
        codes[rows] = steps.round_().clamp_(-LEVELS, LEVELS)
    return Int8Weight(codes, scales)
