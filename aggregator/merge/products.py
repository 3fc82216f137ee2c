"""Running sums Σ w_k·B_k·A_k of products whose factors differ from board to board, in memory that does not grow.

A weight's sum begins as a list of the factors themselves, which costs no arithmetic. When they hold as many values as
the matrix, at Σ r_k = m·n/(m + n) columns, they are multiplied out in float64 into a dense float32 sum, and the list
begins again, a quarter as long.

Counted for a square of side q, K = q/2: multiplying out takes 2·m·n·K = q³ operations. Compacting the factors in place,
two QRs and the SVD of a core as in FLoRIST (arXiv 2506.09199), takes 4·(m + n)·K² − (8/3)·K³ = 1.7·q³ for the QRs
alone, and is in vain: products on bases of their own have rank K, and the list is full again after the next board.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aggregator.merge.state import F32, F64, Factors

_SHORTER = 4
"""By how much the list is shorter beside a dense sum: less memory, and still wide enough for matrix products."""


@dataclass(frozen=True, slots=True, eq=False)
class Addend:
    """One w·b·a of a sum."""

    weight: float
    b: F32  # (m, r)
    a: F32  # (r, n)


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
    # Copies: what arrives may be a view, which would keep a whole message alive.
    addends = (*before, Addend(weight, product.b.copy(), product.a.copy()))
    limit = m * n if dense is None else m * n / _SHORTER
    if sum(len(one.a) for one in addends) * (m + n) < limit:
        return ProductSum(shape, addends, dense)
    return ProductSum(shape, (), _multiplied_out(addends, dense).astype(np.float32))


def factors(total: ProductSum) -> tuple[F64, F64]:
    """The sum as b (m, k), a (k, n), k ≤ min(m, n). A dense sum is one factor itself, the other is an identity."""
    if total.dense is None:
        return _stacked(total.addends)
    whole = _multiplied_out(total.addends, total.dense)
    m, n = total.shape
    return (whole, np.eye(n)) if n <= m else (np.eye(m), whole)


def _multiplied_out(addends: tuple[Addend, ...], dense: F32 | None) -> F64:
    if not addends and dense is not None:
        return dense.astype(np.float64)
    b, a = _stacked(addends)
    return b @ a if dense is None else dense + b @ a


def _stacked(addends: tuple[Addend, ...]) -> tuple[F64, F64]:
    """Σ w·b·a as one product: b (m, Σ r), a (Σ r, n)."""
    b = np.concatenate([one.b.astype(np.float64) * one.weight for one in addends], axis=1)
    return b, np.concatenate([one.a for one in addends]).astype(np.float64)
