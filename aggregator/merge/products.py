"""Running sums Σ w_k·B_k·A_k of products whose factors differ from board to board, in memory that does not grow.

A weight's sum begins as a list of the factors themselves, which costs no arithmetic. When they hold as many values as
the matrix, at Σ r_k = m·n/(m + n) columns, they are multiplied out into a dense float32 sum, and the list
begins again, a quarter as long.

Counted for a square of side q, K = q/2: multiplying out takes 2·m·n·K = q³ operations. Compacting the factors in place,
two QRs and the SVD of a core as in FLoRIST (arXiv 2506.09199), takes 4·(m + n)·K² − (8/3)·K³ = 1.7·q³ for the QRs
alone, and is in vain: products on bases of their own have rank K, and the list is full again after the next board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.state import F32, F64, Factors

T = TypeVar("T", np.float32, np.float64)

_SHORTER = 4
"""By how much the list is shorter beside a dense sum: less memory, and still wide enough for matrix products."""


@dataclass(frozen=True, slots=True, eq=False)
class Addend:
    """One w·b·a of a sum."""

    weight: float
    b: F32 | F64  # (m, r)
    a: F32 | F64  # (r, n)


@dataclass(frozen=True, slots=True, eq=False)
class ProductSum:
    """Σ w·b·a of one weight of `shape` (m, n): `dense` where factors were multiplied out, and what was added since.

    Together at most 5·m·n bytes. `dense` rounds at each multiplication, to 2⁻²⁴ of its own entries.
    """

    shape: tuple[int, int]
    addends: tuple[Addend, ...] = ()
    dense: F32 | None = None


def add(total: ProductSum | None, product: Factors, weight: float) -> ProductSum:
    """The sum with one more product, times `weight`. No argument changes; the order matters to rounding only.

    Raises ValueError where shapes do not fit each other.
    """
    m, n = shape = len(product.b), product.a.shape[1]
    if product.b.shape[1] != len(product.a) or (total is not None and total.shape != shape):
        raise ValueError(f"factors of shapes {product.b.shape} and {product.a.shape} do not fit the sum or each other")
    before, dense = (total.addends, total.dense) if total is not None else ((), None)
    addends = (*before, Addend(weight, owned(product.b), owned(product.a)))
    limit = m * n if dense is None else m * n / _SHORTER
    if sum(len(one.a) for one in addends) * (m + n) < limit:
        return ProductSum(shape, addends, dense)
    b, a = stacked(addends, np.float32)
    return ProductSum(shape, (), b @ a if dense is None else dense + b @ a)


def owned(array: F32) -> F32:
    """The array, or a copy of a view: that would keep a whole message alive."""
    return array if array.flags.owndata else array.copy()


def factors(total: ProductSum) -> tuple[F64, F64]:
    """The sum as b (m, k), a (k, n), k ≤ min(m, n). A dense sum is one factor itself, the other is an identity."""
    return stacked(terms(total), np.float64)


def terms(total: ProductSum) -> tuple[Addend, ...]:
    """The same as addends of together k columns, float64 where the sum is dense."""
    if total.dense is None:
        return total.addends
    whole = total.dense.astype(np.float64)
    if total.addends:
        b, a = stacked(total.addends, np.float64)
        whole += b @ a
    m, n = total.shape
    return (Addend(1.0, whole, np.eye(n)) if n <= m else Addend(1.0, np.eye(m), whole),)


def stacked(addends: Sequence[Addend], dtype: type[T], divisor: float = 1.0) -> tuple[NDArray[T], NDArray[T]]:
    """Σ w·b·a / divisor of at least one addend as one product: b (m, Σ r), a (Σ r, n). Written once, and not piece by
    piece: these are the largest arrays of a merge, and new memory costs as much as arithmetic."""
    ends = np.cumsum([len(one.a) for one in addends], dtype=int)
    m, n = len(addends[0].b), addends[0].a.shape[1]
    b, a = np.empty((m, ends[-1]), dtype), np.empty((ends[-1], n), dtype)
    for one, end in zip(addends, ends, strict=True):
        here = slice(end - len(one.a), end)
        np.multiply(one.b, one.weight / divisor, out=b[:, here], dtype=dtype)
        a[here] = one.a
    return b, a
