"""Running sums Σ w_k·B_k·A_k of products whose factors differ from board to board, in memory that does not grow.

A weight's sum begins as a list of the factors themselves, which costs no arithmetic. When they hold as many values as
the matrix, at Σ r_k = m·n/(m + n) columns or somewhat later, they are multiplied out into a dense float32 sum, and the
list begins again, a quarter as long. Where boards train many weights, each is multiplied out at a time of its own:
what was summed before stays until all of an update is in, and would else be in memory twice.

Counted for a square of side q, K = q/2: multiplying out takes 2·m·n·K = q³ operations. Compacting the factors in place,
two QRs and the SVD of a core as in FLoRIST (arXiv 2506.09199), takes 4·(m + n)·K² − (8/3)·K³ = 1.7·q³ for the QRs
alone, and is in vain: products on bases of their own have rank K, and the list is full again after the next board.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from aggregator.merge.addends import Addends, Dense, Product, multiplied
from aggregator.merge.state import F32, Factors

_SHORTER = 4
"""By how much the list is shorter beside a dense sum: less memory, and still wide enough for matrix products."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductSum:
    """Σ w·b·a of one weight of `shape` (m, n): `dense` where factors were multiplied out, and what was added since.

    Together at most 5·m·n bytes. `dense` rounds at each multiplication, to 2⁻²⁴ of its own entries. `later`, 0 to 1, is
    how much longer than others the first list becomes.
    """

    shape: tuple[int, int]
    later: float = 0.0
    addends: tuple[Product, ...] = ()
    dense: F32 | None = None


def empty(name: str, product: Factors) -> ProductSum:
    """The sum of nothing yet, of the weight `name` and the shape of this product."""
    return ProductSum((len(product.b), product.a.shape[1]), zlib.crc32(name.encode()) / 2**32)


def add(total: ProductSum, product: Factors, weight: float, start: F32 | None = None) -> ProductSum:
    """The sum with one more product, or with (b − start)·a, times `weight`. No argument changes; the order matters to
    rounding only.

    Raises ValueError where shapes do not fit each other.
    """
    one = Product(weight, owned(product.b), owned(product.a), start)
    m, n = shape = one.shape
    if total.shape != shape:
        raise ValueError(f"a product of shape {shape} does not fit a sum of shape {total.shape}")
    after = replace(total, addends=(*total.addends, one))
    limit = m * n * (1 + total.later / _SHORTER) if total.dense is None else m * n / _SHORTER
    if sum(len(one.a) for one in after.addends) * (m + n) < limit:
        return after
    return replace(after, addends=(), dense=multiplied(terms(after), np.float32))


def owned(array: F32) -> F32:
    """The array, or a copy of a view: that would keep a whole message alive."""
    return array if array.flags.owndata else array.copy()


def terms(total: ProductSum) -> Addends:
    """The sum as addends; nothing is multiplied."""
    return total.addends if total.dense is None else (*total.addends, Dense(1.0, total.dense))
