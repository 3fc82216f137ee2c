"""4-bit NormalFloat (QLoRA, arXiv 2305.14314 §3) in plain torch: blocks of 64 values share one fp32 absmax.

Codes and numbers are those of bitsandbytes 0.50 (`quantize_4bit(…, 64, quant_type="nf4")`, no double quantisation);
tests hold them equal. bitsandbytes itself is not imported: that costs 120 MiB of RSS (measured, x86-64, 0.50.2 next to
torch 2.13 CPU), more than 4 bits save on FLAN-T5-small, and its aarch64 wheel has no kernel for Orin's GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from quantize.weight import CHUNK_VALUES, Scratch, taken

BLOCK_VALUES = 64
"""Consecutive values (row-major) under one absmax; 4.5 bits per value in all."""

# fmt: off
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)
# fmt: on
"""Quantiles of the normal distribution, scaled to [−1, 1], with an exact zero."""


@dataclass(frozen=True, eq=False)
class Nf4Weight:
    """Two codes a byte, the earlier value in the high half; `absmax[i]` scales values 64·i … 64·i + 63."""

    shape: tuple[int, int]
    codes: Tensor  # (⌈rows·columns/2⌉,) uint8
    absmax: Tensor  # (⌈rows·columns/64⌉,) float32

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def resident_bytes(self) -> int:
        return self.codes.nbytes + self.absmax.nbytes

    def to(self, device: torch.device) -> Nf4Weight:
        return Nf4Weight(self.shape, self.codes.to(device), self.absmax.to(device))

    def dense(self, dtype: torch.dtype, scratch: Scratch | None = None) -> Tensor:
        out = taken(scratch, self.shape, dtype, self.device)
        self._unpack(0, out.view(-1))
        return out

    def dense_rows(self, rows: slice, dtype: torch.dtype, scratch: Scratch | None = None) -> Tensor:
        start, stop, _ = rows.indices(self.shape[0])
        columns = self.shape[1]
        if start * columns % BLOCK_VALUES:
            return self.rows_of(torch.arange(start, stop, device=self.device), dtype)
        out = taken(scratch, (stop - start, columns), dtype, self.device)
        self._unpack(start * columns, out.view(-1))
        return out

    def _unpack(self, first: int, out: Tensor) -> None:
        """Fill the caller's `out` (n,) with values first, first + 1, …; `first` is the start of a block."""
        pairs = _pair_table(self.device)
        for start in range(0, len(out), CHUNK_VALUES):
            part = out[start : start + CHUNK_VALUES]
            place = first + start
            codes = self.codes[place // 2 : (place + len(part) + 1) // 2]
            values = pairs.index_select(0, codes.int()).view(torch.float32)  # (2·codes,)
            _scale_blocks(values, self.absmax[place // BLOCK_VALUES : -(-(place + len(values)) // BLOCK_VALUES)])
            part.copy_(values[: len(part)])

    def rows_of(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape[0]:
            raise IndexError(f"row ids must be in 0…{self.shape[0] - 1}")
        places = ids[..., None] * self.shape[1] + torch.arange(self.shape[1], device=ids.device)
        both = self.codes[places // 2]
        codes = torch.where(places % 2 == 0, both >> 4, both & 15)
        return (torch.tensor(LEVELS, device=codes.device)[codes.int()] * self.absmax[places // BLOCK_VALUES]).to(dtype)


def to_nf4(values: Tensor) -> Nf4Weight:
    """Round a matrix (rows, columns) of any float dtype to nf4.

    The error of a value is at most 0.152 · absmax of its block (half the widest gap between levels).
    """
    flat = values.reshape(-1)
    codes, absmax = [], []
    for start in range(0, len(flat), CHUNK_VALUES):
        chunk_codes, chunk_absmax = _encode(flat[start : start + CHUNK_VALUES].float())
        codes.append(chunk_codes)
        absmax.append(chunk_absmax)
    rows, columns = values.shape
    return Nf4Weight((rows, columns), torch.cat(codes), torch.cat(absmax))


def _encode(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and absmax of a flat fp32 tensor that starts at a block's edge."""
    padding = -len(values) % BLOCK_VALUES
    blocks = torch.nn.functional.pad(values, (0, padding)).view(-1, BLOCK_VALUES)
    absmax = blocks.abs().amax(dim=1)
    # Multiplied by the reciprocal as bitsandbytes does: a division can fall on the other side of a boundary.
    scaled = (blocks * (1.0 / absmax.clamp_min(1e-38))[:, None]).clamp_(-1, 1).view(-1)
    levels = torch.tensor(LEVELS)
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8)
    packed = (codes[::2] << 4) | codes[1::2]
    return packed[: (len(values) + 1) // 2].clone(), absmax


@cache
def _pair_table(device: torch.device) -> Tensor:
    """(256,) int64, each the bits of two float32: the two values of a byte. Looking up one 8-byte number a byte is
    four times as fast as looking up rows of two."""
    levels = torch.tensor(LEVELS)
    codes = torch.arange(256)
    pairs = torch.stack((levels[codes >> 4], levels[codes & 15]), dim=1)
    return pairs.view(torch.int64)[:, 0].to(device)


def _scale_blocks(values: Tensor, absmax: Tensor) -> None:
    """Multiply each block of the caller's own scratch `values` by its absmax, in place; the last may be short."""
    whole = len(values) // BLOCK_VALUES
    values[: whole * BLOCK_VALUES].view(-1, BLOCK_VALUES).mul_(absmax[:whole, None])
    if whole < len(absmax):
        values[whole * BLOCK_VALUES :].mul_(absmax[whole])
