"""Leading singular vectors of a large matrix W: a block Krylov search with full reorthogonalisation.

A truncation keeps 32 directions of 768 or more, and a full decomposition finds all of them. What a block has found
after a few products with W and Wᵀ is the best of their whole Krylov space, and so gets close whether or not there is a
gap behind the last direction that is kept (Musco and Musco, arXiv 1504.05477).

Vectors are float32, which is what matrices and results have, and takes a third of float64's time. Since residuals are
those of singular vectors, Wᵀu − σv, and not of WᵀW, singular values down to float32's rounding of the largest one are
told apart (as in block Golub–Kahan bidiagonalisation: Golub, Luk and Overton 1981).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aggregator.merge.state import F32, F64

MAX_LOST = 1e-7
"""The norm of what a truncation leaves out may be larger than the least possible one by this part of it."""

RESOLVED = 2.0**-42
"""Part of the trace that counts as rounding: a norm of 2⁻²¹ of the whole, of which float32 sums resolve no less."""

ORTHOGONAL = 2.0**-21
"""Columns whose inner products are no larger count as orthogonal."""

_ROUNDING = 2.0**-24
"""Half the distance from 1 to the next float32."""

_TINY = np.finfo(np.float64).tiny
"""Keeps zero from being divided by zero."""


Multiply = Callable[[F32], F32]


def leading(times: Multiply, transposed: Multiply, start: F32, rank: int, depths: int) -> tuple[F32, F32] | None:
    """Leading right singular vectors of a matrix W (m, n) that is known by its products alone.

    The same arguments give the same bits, and nearly equal ones nearly the same space. A direction to which `start` is
    orthogonal to the last bit is not found.

    Args:
        times: x (n, p) ↦ W·x.
        transposed: y (m, p) ↦ Wᵀ·y.
        start: (n, p) float32 of any rank, p > rank.
        rank: how many vectors are wanted.
        depths: blocks of p vectors that may be searched, p·depths ≤ m, n.

    Returns:
        v (n, rank), leading first, and W·v (m, rank), both float32; None where as many blocks as `depths` would not do,
        or a value is not finite.
    """
    p = start.shape[1]
    if not np.isfinite(start).all():
        return None
    newest = right = _orthonormal(start)
    image = times(newest)
    missing = np.inf
    for size in range(p, depths * p + 1, p):
        # Rayleigh–Ritz: eigenvectors of (W·right)ᵀ(W·right), `size` square, are the best singular vectors of W within
        # the span of `right`. In float64, for the squares of float32's range of singular values.
        wide = image.astype(np.float64)
        if not np.isfinite(square := wide.T @ wide).all():
            return None
        values, vectors = (array[..., ::-1] for array in np.linalg.eigh(square))
        sigma = np.sqrt(np.maximum(values[:p], 0))
        # u = W·v/σ of the leading block; where σ is rounding, divided by rounding instead of by zero.
        left = (wide @ (vectors[:, :p] / np.maximum(sigma, _ROUNDING * sigma[0] + _TINY))).astype(np.float32)
        rest = _without(transposed(left), right)  # Wᵀu − σv, but for rounding
        before, missing = missing, _missing(values, sigma[:rank] * np.linalg.norm(rest[:, :rank], axis=0))
        if missing <= 1:  # what other directions could hold is less than what may be lost
            found = vectors[:, :rank].astype(np.float32)
            return right @ found, image @ found
        if missing * min(1.0, missing / before) ** (depths - size // p) > 1 and size > p:
            return None  # as much again from every further block would not be enough
        # The residuals point where the space lacks something: with them it is the next Krylov space.
        newest = _outside(rest, right)
        right, image = (np.concatenate(pair, axis=1) for pair in ((right, newest), (image, times(newest))))
    return None


def _outside(rest: F32, basis: F32) -> F32:
    """Orthonormal columns outside of the basis (n, s) that span `rest` (n, p), which is so but for rounding."""
    columns = _orthonormal(_without(rest, basis))
    if np.abs(basis.T @ columns).max() > ORTHOGONAL:  # where part of `rest` is nothing but rounding
        columns = _orthonormal(_without(columns, basis))
    return columns


def _orthonormal(columns: F32) -> F32:
    """Orthonormal columns (n, p) that span these: by Cholesky, or where they nearly depend on each other by QR, which
    takes three times as long."""
    wide = columns.astype(np.float64)  # c = q·Lᵀ with L of cᵀc = L·Lᵀ; its condition is squared, hence float64
    try:
        triangle = np.linalg.cholesky(wide.T @ wide)
    except np.linalg.LinAlgError:
        return np.linalg.qr(columns)[0]
    made = (wide @ np.linalg.inv(triangle).T).astype(np.float32)
    off = np.abs(made.T @ made - np.eye(made.shape[1], dtype=np.float32)).max()
    return made if off <= ORTHOGONAL else np.linalg.qr(columns)[0]


def _without(columns: F32, basis: F32) -> F32:
    """The columns (n, p) without what they have in the space of the basis (n, s)."""
    without: F32 = columns - basis @ (basis.T @ columns)
    return without


def _missing(values: F64, residuals: F64) -> float:
    """How much more other directions could hold than the leading ones found, as a multiple of what may be lost.

    Args:
        values: Ritz values of WᵀW (those of the searched space), falling.
        residuals: (rank,) norms of the residuals of the leading `rank` of them.

    A direction of value θ gains at most ((θ − μ)² + 4·r²)^½/2 − (θ − μ)/2 from what is outside of the space, where no
    value is above μ: r²/(θ − μ) across a gap, and r without one. The next Ritz value stands for μ.
    """
    rank = len(residuals)
    gaps = values[:rank] - values[rank]  # θ − μ
    # √(g² + 4r²)/2 − g/2 written as r·2r/(√(g² + 4r²) + g), which loses no digits where r is small beside g.
    gains = residuals * (2 * residuals / (np.hypot(gaps, 2 * residuals) + gaps + _TINY))
    left = np.maximum(values[rank:], 0).sum()  # what the truncation leaves out, of what was searched
    # A norm that may grow by the part MAX_LOST may grow by 2·MAX_LOST in its square, which is what these values are.
    return float(gains.sum() / (2 * MAX_LOST * left + RESOLVED * values[:rank].sum() + _TINY))
