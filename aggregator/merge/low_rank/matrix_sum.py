"""Matrices as sums that are not worked out yet: weighted products of factors, and matrices themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.state import F32, F64

T = TypeVar("T", np.float32, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A weighted product: weight·b·a, or weight·(b − b₀)·a with b₀ the leading columns of `start`.

    The difference is taken where it is used: that costs less than memory to keep it in.
    """

    weight: float
    b: F32 | F64  # (m, r)
    a: F32 | F64  # (r, n)
    start: F32 | None = None  # (m, ≥ r)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n). Raises ValueError where the factors do not fit each other."""
        if self.b.shape[1] != len(self.a):
            raise ValueError(f"factors of shapes {self.b.shape} and {self.a.shape} do not fit each other")
        return len(self.b), self.a.shape[1]

    @property
    def is_zero(self) -> bool:
        return not (self.left().any() and self.a.any())

    def left(self) -> F32 | F64:
        """The left factor (m, r), the difference where it is one."""
        return self.b if self.start is None else self.b - self.start[:, : self.b.shape[1]]


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A weighted matrix: weight·w."""

    weight: float
    w: F32 | F64  # (m, n)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)"""
        m, n = self.w.shape
        return m, n

    @property
    def is_zero(self) -> bool:
        return not self.w.any()


Term = Product | Dense

LowRankSum = tuple[Term, ...]
"""A sum that is not worked out, as its terms; without any it is zero."""


def scaled(terms: LowRankSum, factor: float) -> LowRankSum:
    """The sum times a number."""
    return tuple(replace(one, weight=one.weight * factor) for one in terms)


def stacked(products: Sequence[Product], dtype: type[T]) -> tuple[NDArray[T], NDArray[T]]:
    """Products beside one another, as one product of all of them.

    Args:
        products: at least one, all of one shape (m, n).
        dtype: that of the result.

    Returns:
        b (m, Σ r) with the weights multiplied in, and a (Σ r, n). Written once, and not piece by piece: these are the
        largest arrays of a merge, and new memory costs as much as arithmetic.
    """
    ends = np.cumsum([len(one.a) for one in products], dtype=int)
    m, n = products[0].shape
    b, a = np.empty((m, ends[-1]), dtype), np.empty((ends[-1], n), dtype)
    for one, end in zip(products, ends, strict=True):
        here = slice(end - len(one.a), end)
        np.multiply(one.left(), one.weight, out=b[:, here], dtype=dtype)
        a[here] = one.a
    return b, a


def multiplied(terms: LowRankSum, dtype: type[T]) -> NDArray[T]:
    """The sum of at least one term as a matrix (m, n)."""
    products = [one for one in terms if isinstance(one, Product)]
    total = np.matmul(*stacked(products, dtype)) if products else np.zeros(terms[0].shape, dtype)
    for one in terms:
        if isinstance(one, Dense):
            total += one.w if one.weight == 1 else np.multiply(one.w, one.weight, dtype=dtype)
    return total
