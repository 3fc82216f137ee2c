"""What boards changed of the strands that they were sent, of one board as a product and summed over a round.

    b·a − b₀·a₀ = db·a₀ + b₀·da + db·da        db = b − b₀, da = a − a₀

The boards of a version begin at leading strands of one start, so that the first two terms are sums of db and of da
alone, whatever the ranks; only the third is a product of its own for each board, of its rank instead of twice that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from aggregator.merge.products import Addend, ProductSum, add, owned, terms
from aggregator.merge.state import F64, Factors


def change(left: Factors, start: Factors) -> Factors | None:
    """b·a − b₀·a₀ = (b − b₀)·a + b₀·(a − a₀) as factors of twice the rank; None where not a bit has changed.

    Written in differences, so that a small change of a large adapter keeps its digits. Raises ValueError where the
    ranks differ.
    """
    by = differences(left, start)
    return by and Factors(np.concatenate([by.b, start.b], axis=1), np.concatenate([left.a, by.a]))


def differences(left: Factors, start: Factors) -> Factors | None:
    """db and da; None where not a bit has changed. Raises ValueError where the ranks differ."""
    if left.b.shape != start.b.shape or left.a.shape != start.a.shape:
        raise ValueError(f"factors of shapes {left.b.shape} and {left.a.shape} did not start at {start.b.shape}")
    by = Factors(left.b - start.b, left.a - start.a)
    return by if by.b.any() or by.a.any() else None


@dataclass(frozen=True, slots=True, eq=False)
class ChangeSum:
    """Σ w·(b·a − b₀·a₀) of one weight, over boards that began at leading strands of `start`, the longest of theirs.

    `products` is Σ w·db·da. What is linear in db and da follows from its list of factors; `b` and `a` hold Σ w·pad(db)
    and Σ w·pad(da) of those that were multiplied out, and are None before any were.
    """

    start: Factors
    products: ProductSum
    b: F64 | None = None  # (m, r)
    a: F64 | None = None  # (r, n)

    def terms(self) -> tuple[Addend, ...]:
        b, a = self._linear(self.products.addends)
        linear = (Addend(1.0, b, self.start.a[: len(a)]), Addend(1.0, self.start.b[:, : len(a)], a))
        return (*linear, *terms(self.products))

    def _linear(self, addends: Sequence[Addend]) -> tuple[F64, F64]:
        """Σ w·pad(db) and Σ w·pad(da) with those of the addends."""
        m, n = self.products.shape
        rank = len(self.start.a)
        b, a = np.zeros((m, rank)), np.zeros((rank, n))
        if self.b is not None and self.a is not None:
            b[:, : len(self.a)], a[: len(self.a)] = self.b, self.a
        for one in addends:
            b[:, : len(one.a)] += one.weight * one.b.astype(np.float64)
            a[: len(one.a)] += one.weight * one.a.astype(np.float64)
        return b, a


def begins_alike(total: ChangeSum | None, start: Factors) -> bool:
    """Whether the shorter of this start and the sum's is the leading strands of the longer, bit for bit."""
    if total is None:
        return True
    r = min(len(start.a), len(total.start.a))
    same_b = np.array_equal(start.b[:, :r], total.start.b[:, :r])
    return same_b and np.array_equal(start.a[:r], total.start.a[:r])


def add_change(total: ChangeSum | None, start: Factors, by: Factors, weight: float) -> ChangeSum:
    """The sum with one more board that changed its start, which must begin alike, by db and da. No argument changes."""
    before = total or ChangeSum(_owned(start), ProductSum((len(by.b), by.a.shape[1])))
    longest = before.start if len(before.start.a) >= len(start.a) else _owned(start)
    added = replace(before, start=longest, products=add(before.products, by, weight))
    if added.products.addends:
        return added
    b, a = added._linear((*before.products.addends, Addend(weight, by.b, by.a)))
    return replace(added, b=b, a=a)


def _owned(start: Factors) -> Factors:
    return Factors(owned(start.b), owned(start.a))
