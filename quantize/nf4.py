"""4-bit NormalFloat (QLoRA, arXiv 2305.14314 §3) in plain torch: blocks of 64 values share one fp32 absmax.

Codes and numbers are those of bitsandbytes 0.50 (`quantize_4bit(…, 64, quant_type="nf4")`, no double quantisation);
tests hold them equal. bitsandbytes itself is imported only where quantize/kernels.py says that it serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from braid_common.base.weights import BLOCK_VALUES, packed_sizes
from quantize.kernels import BITSANDBYTES, nf4_kernel
from quantize.weight import CHUNK_VALUES, CPU, Chunks, Scratch, largest_magnitudes, matrix_chunks, taken

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
        codes, absmax = self.codes[first // 2 :], self.absmax[first // BLOCK_VALUES :]
        if nf4_kernel(self.device.type).name == BITSANDBYTES:
            unpack_with_bitsandbytes(codes, absmax, out)
        else:
            unpack_with_torch(codes, absmax, out)

    def rows_of(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.shape[0]:
            raise IndexError(f"row ids must be in 0…{self.shape[0] - 1}")
        # Place in row-major order of every value asked for; two places share a byte, the even one in its high half.
        places = ids[..., None] * self.shape[1] + torch.arange(self.shape[1], device=ids.device)
        both = self.codes[places // 2]
        codes = torch.where(places % 2 == 0, both >> 4, both & 15)
        return (torch.tensor(LEVELS, device=codes.device)[codes.int()] * self.absmax[places // BLOCK_VALUES]).to(dtype)


def unpack_with_torch(codes: Tensor, absmax: Tensor, out: Tensor) -> None:
    """Unpack the first n values of blocks.

    Args:
        codes: (bytes,) uint8, two codes each.
        absmax: (blocks,) fp32.
        out: (n,) fp32 or bf16, the caller's, which is filled.
    """
    pairs = _pair_table(codes.device)
    for start in range(0, len(out), CHUNK_VALUES):
        part = out[start : start + CHUNK_VALUES]
        pair_codes = codes[start // 2 : (start + len(part) + 1) // 2]
        values = pairs.index_select(0, pair_codes.int()).view(torch.float32)  # (2·codes,)
        _scale_blocks(values, absmax[start // BLOCK_VALUES : -(-(start + len(values)) // BLOCK_VALUES)])
        part.copy_(values[: len(part)])


def unpack_with_bitsandbytes(codes: Tensor, absmax: Tensor, out: Tensor) -> None:
    """Unpack as `unpack_with_torch`, by bitsandbytes' kernel.

    Raises ImportError, OSError or RuntimeError where it cannot; on a GPU that it has no kernel for it may end the
    process.
    """
    import bitsandbytes.functional as functional

    n_codes, n_blocks = packed_sizes(len(out))
    packed = codes[:n_codes].view(-1, 1)
    functional.dequantize_4bit(packed, absmax=absmax[:n_blocks], out=out, blocksize=BLOCK_VALUES, quant_type="nf4")


def to_nf4(values: Tensor) -> Nf4Weight:
    """Round a matrix to nf4.

    Args:
        values: (rows, columns) of any float dtype, finite.

    Returns:
        Codes and scales. The error of a value is at most 0.152 · absmax of its block: half the widest gap of levels.
    """
    rows, columns = values.shape
    return nf4_of_chunks((rows, columns), matrix_chunks(values), Scratch())


def nf4_of_chunks(shape: tuple[int, int], chunks: Chunks, scratch: Scratch) -> Nf4Weight:
    """Round as `to_nf4` a matrix (rows, columns) that comes a few rows at a time; the chunks are overwritten."""
    n_codes, n_blocks = packed_sizes(shape[0] * shape[1])
    codes, absmax = torch.empty(n_codes, dtype=torch.uint8), torch.empty(n_blocks, dtype=torch.float32)
    first = 0
    for chunk in chunks:  # all but the last in whole blocks
        block = first // BLOCK_VALUES
        first += chunk.numel()
        _encode(chunk, codes[block * BLOCK_VALUES // 2 :], absmax[block:], scratch)
    return Nf4Weight(shape, codes, absmax)


def _encode(chunk: Tensor, codes: Tensor, absmax: Tensor, scratch: Scratch) -> None:
    """Fill the start of the caller's `codes` and `absmax` with those of a chunk, which is overwritten."""
    n_codes, n_blocks = packed_sizes(chunk.numel())
    padding = n_blocks * BLOCK_VALUES - chunk.numel()
    flat = torch.nn.functional.pad(chunk.view(-1), (0, padding)) if padding else chunk.view(-1)
    blocks = flat.view(n_blocks, BLOCK_VALUES)
    largest = absmax[:n_blocks].copy_(largest_magnitudes(blocks))
    # Multiplied by the reciprocal as bitsandbytes does: a division can fall on the other side of a boundary.
    blocks.mul_((1.0 / largest.clamp_min(1e-38))[:, None]).clamp_(-1, 1)
    levels = torch.tensor(LEVELS)
    # The nearest level is found by the boundaries half-way between neighbours; then two codes share a byte.
    one_by_one = scratch.take((len(flat) // 2, 2), torch.int32, CPU)
    torch.bucketize(flat.view(-1, 2), (levels[1:] + levels[:-1]) / 2, out_int32=True, out=one_by_one)
    codes[:n_codes] = one_by_one[:n_codes, 0].mul_(16).add_(one_by_one[:n_codes, 1])


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
