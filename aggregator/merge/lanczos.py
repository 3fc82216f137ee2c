"""Leading singular vectors of a large matrix W: block Lanczos on WᵀW, reorthogonalised (Golub and Underwood 1977).

A truncation keeps 32 directions of 768 or more, and a full eigendecomposition finds all of them. What a block has found
after a few products with WᵀW is the best of their whole Krylov space, and so gets close whether or not there is
a gap behind the last direction that is kept (Musco and Musco, arXiv 1504.05477).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aggregator.merge.state import F64

MAX_LOST = 1e-7
"""The norm of what a truncation leaves out may be larger than the least possible one by this part of it."""

RESOLVED = 2.0**-46
"""Part of the trace that counts as rounding: a norm of 2⁻²³ of the whole, which float32 does not resolve."""

ORTHOGONAL = 1e-12
"""Columns whose inner products are no larger count as orthogonal: values then are off by 1e-24 of the largest one."""

_TINY = np.finfo(np.float64).tiny
"""Keeps zero from being divided by zero."""


Product = Callable[[F64], F64]


def leading(times: Product, transposed: Product, start: F64, rank: int, depths: int) -> tuple[F64, F64] | None:
    """`rank` right singular vectors v (n, rank) of a matrix W (m, n), leading first, and W·v; None where as many blocks
    as `depths` would not do.

    Args: times, x (n, p) ↦ W·x, and transposed, y (m, p) ↦ Wᵀ·y; start (n, p) of any rank, p > rank; p·depths ≤ n. The
    same arguments give the same bits, and nearly equal ones nearly the same space. A direction to which `start` is
    orthogonal to the last bit is not found. Raises LinAlgError where a value is not finite.
    """
    p = start.shape[1]
    newest = basis = np.linalg.qr(finite(start))[0]
    image = times(newest)
    projected = np.zeros((depths * p, depths * p))
    missing = np.inf
    for size in range(p, depths * p + 1, p):
        rest = finite(transposed(image[:, -p:]))
        new = basis.T @ rest
        rest -= basis @ new
        projected[:size, size - p : size] = new
        projected[size - p : size, :size] = new.T
        values, vectors = np.linalg.eigh(projected[:size, :size])
        values, vectors = values[::-1], vectors[:, ::-1]
        before, missing = missing, _missing(values, np.linalg.norm(rest @ vectors[-p:, :rank], axis=0))
        if missing <= 1:
            return basis @ vectors[:, :rank], image @ vectors[:, :rank]
        if missing * min(1.0, missing / before) ** (depths - size // p) > 1 and size > p:
            return None  # as much again from every further block would not be enough
        newest = _outside(rest, basis)
        basis, image = (np.concatenate(pair, axis=1) for pair in ((basis, newest), (image, times(newest))))
    return None


def finite(array: F64) -> F64:
    """The array. Raises LinAlgError where it holds NaN or infinity."""
    if not np.isfinite(array).all():
        raise np.linalg.LinAlgError("a factor holds NaN, infinity or values whose squares float64 cannot hold")
    return array


def _outside(rest: F64, basis: F64) -> F64:
    """Orthonormal columns outside of the basis (n, s) that span `rest` (n, p), which is so but for rounding."""
    columns = np.linalg.qr(rest - basis @ (basis.T @ rest))[0]
    inside = basis.T @ columns
    if np.abs(inside).max() > ORTHOGONAL:  # where part of `rest` is nothing but rounding
        columns = np.linalg.qr(columns - basis @ inside)[0]
    return columns


def _missing(values: F64, residuals: F64) -> float:
    """What directions of the same number can hold beyond the leading Ritz values (falling; as many as residuals), as
    multiples of what may be lost.

    A direction of value θ gains at most ((θ − μ)² + 4·r²)^½/2 − (θ − μ)/2 from what is outside of the space, where no
    value is above μ: r²/(θ − μ) across a gap, and r without one. The next Ritz value stands for μ.
    """
    rank = len(residuals)
    gaps = values[:rank] - values[rank]
    gains = residuals * (2 * residuals / (np.hypot(gaps, 2 * residuals) + gaps + _TINY))
    left = np.maximum(values[rank:], 0).sum()
    return float(gains.sum() / (2 * MAX_LOST * left + RESOLVED * values[:rank].sum() + _TINY))
