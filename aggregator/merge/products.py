"""Running sums Σ w_k·B_k·A_k of products whose factors differ from board to board, in memory that does not grow.

A weight's sum begins as a list of the factors themselves, which costs no arithmetic. When they hold as many values as
the matrix, at Σ r_k = m·n/(m + n) columns, they are multiplied out into a dense float32 sum, and the list begins again,
an eighth as long. That is a step of its own (`compacted`), taken for one sum after the other: what was summed before
lives until whoever holds it has dropped it, and all sums of an update together would be in memory twice.

Counted for a square of side q, K = q/2: multiplying out takes 2·m·n·K = q³ operations. Compacting the factors in place,
two QRs and the SVD of a core as in FLoRIST (arXiv 2506.09199), takes 4·(m + n)·K² − (8/3)·K³ = 1.7·q³ for the QRs
alone, and is in vain: products on bases of their own have rank K, and the list is full again after the next board.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from aggregator.merge.low_rank.matrix_sum import Dense, LowRankSum, Product, multiplied
from aggregator.merge.state import F32, Factors

_SHORTER = 8
"""By how much the list is shorter beside a dense sum: less memory. 16 costs time, for products get too narrow."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductSum:
    """A running sum Σ w·b·a of one weight of `shape` (m, n).

    `dense` is what was multiplied out, `terms` what was added since. Once it is compacted, both together take at most
    4.5·m·n bytes. `dense` rounds at each multiplication, to 2⁻²⁴ of its own entries.
    """

    shape: tuple[int, int]
    terms: tuple[Product, ...] = ()
    dense: F32 | None = None

    @property
    def is_long(self) -> bool:
        """Whether the factors take more memory than they should."""
        m, n = self.shape
        limit = m * n if self.dense is None else m * n / _SHORTER
        return bool(self.terms) and sum(len(one.a) for one in self.terms) * (m + n) >= limit


def empty(product: Factors) -> ProductSum:
    """The sum of nothing yet, of the shape of this product."""
    return ProductSum((len(product.b), product.a.shape[1]))


def add(total: ProductSum, product: Factors, weight: float, start: F32 | None = None) -> ProductSum:
    """The sum with one more product, or with (b − start)·a, times `weight`. No argument changes; the order matters to
    rounding only.

    Raises ValueError where shapes do not fit each other.
    """
    one = Product(weight, owned(product.b), owned(product.a), start)
    if total.shape != one.shape:
        raise ValueError(f"a product of shape {one.shape} does not fit a sum of shape {total.shape}")
    return ProductSum(total.shape, (*total.terms, one), total.dense)


def compacted(total: ProductSum) -> ProductSum:
    """The sum multiplied out."""
    return replace(total, terms=(), dense=multiplied(low_rank_sum(total), np.float32))


def first_long(sums: Mapping[str, ProductSum]) -> str | None:
    """The name of the first sum that is long, if any is."""
    return next((name for name, one in sums.items() if one.is_long), None)


def owned(array: F32) -> F32:
    """The array, or a copy of a view: that would keep a whole message alive."""
    return array if array.flags.owndata else array.copy()


def low_rank_sum(total: ProductSum) -> LowRankSum:
    """The sum as terms; nothing is multiplied."""
    return total.terms if total.dense is None else (*total.terms, Dense(1.0, total.dense))
