"""Changes of the strands that boards were sent: of one board as a product, and summed over a round.

    b·a − b₀·a₀ = (b − b₀)·a + b₀·(a − a₀)

Written in differences, so that a small change of a large adapter keeps its digits. The boards of a version begin at
leading strands of one start, so that the second term is a plain sum, whatever the ranks; only the first is a product of
its own for each board, of its rank instead of twice that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aggregator.merge.low_rank.matrix_sum import LowRankSum, Product
from aggregator.merge.products import ProductSum, add, compacted, empty, low_rank_sum, owned
from aggregator.merge.state import F64, Factors


def change(left: Factors, start: Factors) -> Factors:
    """The change of one board as factors of twice its rank, [b − b₀ | b₀] and [a over a − a₀]."""
    return Factors(np.concatenate([left.b - start.b, start.b], axis=1), np.concatenate([left.a, left.a - start.a]))


def is_changed(left: Factors, start: Factors) -> bool:
    """Whether a bit of the value differs. Raises ValueError where the shapes do."""
    if left.b.shape != start.b.shape or left.a.shape != start.a.shape:
        raise ValueError(f"factors of shapes {left.b.shape} and {left.a.shape} did not start at {start.b.shape}")
    return not (np.array_equal(left.b, start.b) and np.array_equal(left.a, start.a))


@dataclass(frozen=True, slots=True, eq=False)
class ChangeSum:
    """The running sum Σ w·(b·a − b₀·a₀) of one weight.

    It is over boards that began at leading strands of `start`, the longest of theirs. `products` is Σ w·(b − b₀)·a. The
    part that is linear in a − a₀ follows from its list of factors; `a` holds Σ w·pad(a − a₀) of those that were
    multiplied out, and is None before any were.
    """

    start: Factors
    products: ProductSum
    a: F64 | None = None  # (r, n)

    def low_rank_sum(self) -> LowRankSum:
        a = self._linear()
        return (Product(1.0, self.start.b[:, : len(a)], a), *low_rank_sum(self.products))

    def _linear(self) -> F64:
        """Σ w·pad(a − a₀) over all boards (longest r so far, n) float64: of those multiplied out, and of the terms."""
        total = np.zeros_like(self.start.a, np.float64)
        if self.a is not None:
            total[: len(self.a)] = self.a
        for one in self.products.terms:
            total[: len(one.a)] += np.multiply(one.a - self.start.a[: len(one.a)], one.weight, dtype=np.float64)
        return total


def begins_alike(total: ChangeSum, start: Factors) -> bool:
    """Whether the shorter of this start and the sum's is the leading strands of the longer, bit for bit."""
    r = min(len(start.a), len(total.start.a))
    same_b = np.array_equal(start.b[:, :r], total.start.b[:, :r])
    return same_b and np.array_equal(start.a[:r], total.start.a[:r])


def no_change(start: Factors) -> ChangeSum:
    """The sum of no board yet."""
    return ChangeSum(_owned(start), empty(start))


def add_change(total: ChangeSum, start: Factors, left: Factors, weight: float) -> ChangeSum:
    """The sum with one more board that left other strands than it began at, which must begin alike. No argument
    changes."""
    before = _longer(total, _owned(start)) if len(start.a) > len(total.start.a) else total
    return ChangeSum(before.start, add(before.products, left, weight, before.start.b), before.a)


def compacted_change(total: ChangeSum) -> ChangeSum:
    """The sum multiplied out."""
    return replace(total, products=compacted(total.products), a=total._linear())


def _longer(total: ChangeSum, start: Factors) -> ChangeSum:
    """The sum with more strands of the start; the shorter one can be forgotten."""
    terms = tuple(replace(one, start=start.b) for one in total.products.terms)
    return replace(total, start=start, products=replace(total.products, terms=terms))


def _owned(start: Factors) -> Factors:
    return Factors(owned(start.b), owned(start.a))
