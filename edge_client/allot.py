"""Which strands a board takes: the most valuable first, by value per byte of training memory.

The order is the same for every board of a run, whatever its format or micro-batch, so the choice of a small board is
contained in that of a larger one, and every strand trained by few is trained by the boards that have most memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from wire.messages import RunInfo, Weight

BYTES_PER_ROW = 16
"""A strand's column of B costs four fp32 numbers per output row: value, gradient, and Adam's two moments."""

BYTES_PER_COLUMN = 4
"""Its row of the basis, in fp32. Formats that compute in bf16 halve it; the order must not depend on that."""


def strand_bytes(weight: Weight) -> int:
    """Training memory of one strand of a weight, without the activations that all its strands share."""
    return BYTES_PER_ROW * weight.rows + BYTES_PER_COLUMN * weight.columns


def basis_rows(run: RunInfo) -> tuple[int, ...]:
    """Strands that each weight has: rows of its shared basis."""
    return tuple(min(run.max_rank, weight.rows, weight.columns) for weight in run.weights)


def strand_order(run: RunInfo) -> list[int]:
    """All strands of a run in the order in which boards take them; an entry is the index of the strand's weight.

    The k-th occurrence of a weight stands for its k-th leading strand. Before a ranking exists all strands count as
    equal: every weight gives its first, then every weight its second, and so on.
    """
    keys = []
    for index, (weight, n_strands) in enumerate(zip(run.weights, basis_rows(run), strict=True)):
        worth = _descending(run.values[index] if run.values else (), n_strands)
        size_bytes = strand_bytes(weight) if run.values else 1
        keys += [(-value / size_bytes, strand, index) for strand, value in enumerate(worth)]
    return [index for _, _, index in sorted(keys)]


def allot(order: Sequence[int], n_weights: int, n_strands: int) -> tuple[int, ...]:
    """Ranks per weight of the first `n_strands` strands of `strand_order`. Larger counts contain smaller ones."""
    ranks = [0] * n_weights
    for index in order[:n_strands]:
        ranks[index] += 1
    return tuple(ranks)


def _descending(values: Sequence[float], n_strands: int) -> list[float]:
    """`n_strands` values, none above the one before it: a leading strand is never worth less than one behind it."""
    worth: list[float] = []
    for strand in range(n_strands):
        value = values[strand] if strand < len(values) else 0.0
        worth.append(min(value, worth[-1]) if worth else value)
    return worth
