"""Best low-rank approximations of products and of dense matrices, and orthonormal bases.

Inside everything is float64. Singular vectors come from the eigenvectors of Gram matrices: a matrix c is projected on
them, so what an inexact one costs is at most 2⁻²⁶ of the largest singular value (the square root of float64's 2⁻⁵²),
less than float32 resolves. They take half to two thirds of the time of a QR of both sides and an SVD of the core.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.state import F32, F64

_NOISE = 2.0**-24
"""Singular values below this part of the largest are rounding: inputs and results are float32, which resolves this."""


def truncate(b: NDArray[np.floating], a: NDArray[np.floating], rank: int) -> tuple[F32, F32]:
    """The best approximation of rank ≤ `rank` to b·a in Frobenius norm, as factors.

    Args: b (m, k) and a (k, n), any float dtype; k may exceed m and n, rows may repeat or be zero.
    Returns (b (m, s), a (s, n)) float32, s ≤ rank, without directions that are zero to rounding. The rows of a are
    orthonormal and ordered by singular value, which b carries: what happens to b happens to the product in the same
    norm, its column norms are the singular values, and leading columns are the best lower-rank approximation.
    Raises LinAlgError where a value is not finite. Cost O((m + n)·k² + k³), without an m × n matrix while k is less
    than both. Source: Eckart–Young; a small core instead of dense matrices as in FLoRIST (arXiv 2506.09199).
    """
    wide_b, wide_a = b.astype(np.float64), a.astype(np.float64)
    if b.shape[1] >= min(len(b), a.shape[1]):  # the product is no larger than its factors
        return truncate_dense(wide_b @ wide_a, rank)
    return _from_factors(wide_b, wide_a, rank)


def truncate_dense(w: F64, rank: int) -> tuple[F32, F32]:
    """The same for a matrix w (m, n): eigenvectors of the smaller of wᵀ·w and w·wᵀ, a third of a dense SVD's time."""
    if len(w) < w.shape[1]:
        u = _leading(w.T, rank)
        return _from_factors(u, u.T @ w, rank)
    v = _leading(w, rank)
    return _finished(w @ v, v.T)


def _from_factors(b: F64, a: F64, rank: int) -> tuple[F32, F32]:
    q, r = np.linalg.qr(a.T)  # (n, k), (k, k): b·a = c·qᵀ with orthonormal columns of q
    c = b @ r.T
    v = _leading(c, rank)
    return _finished(c @ v, (q @ v).T)


def _leading(c: F64, rank: int) -> F64:
    """At most `rank` leading right singular vectors of c (m, n), as columns (n, s)."""
    gram = c.T @ c
    if not np.isfinite(gram).all():
        raise np.linalg.LinAlgError("a factor holds NaN, infinity or values whose squares float64 cannot hold")
    return np.linalg.eigh(gram).eigenvectors[:, ::-1][:, :rank]


def _finished(columns: F64, rows: F64) -> tuple[F32, F32]:
    """Without directions whose singular value, the norm of its column, is rounding; with definite signs."""
    norms = np.linalg.norm(columns, axis=0)
    kept = norms > _NOISE * norms.max(initial=0)
    rows, signs = with_signs(rows[kept])
    return (columns[:, kept] * signs).astype(np.float32), rows.astype(np.float32)


def significant(singular: F64) -> int:
    """How many of the descending singular values are more than rounding."""
    return int(np.count_nonzero(singular > _NOISE * singular[0])) if singular.size else 0


def with_signs(rows: F64) -> tuple[F64, F64]:
    """Rows with their largest entry positive, and the signs (±1) that made them so: an SVD leaves them open."""
    if not rows.size:
        return rows, np.ones(len(rows))
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    signs = np.where(largest < 0, -1.0, 1.0)
    return rows * signs[:, None], signs


def completed(rows: F64, count: int, seed: int) -> F64:
    """Orthonormal `rows` (k, n) followed by random ones, orthonormal to them and each other: (count, n), count ≤ n.

    Missing directions must be random like LoRA's A: an SVD's own null space is axis-aligned and would train one input
    feature.
    """
    missing = count - len(rows)
    if missing <= 0:
        return rows[:count]
    drawn = np.random.default_rng(seed).standard_normal((missing, rows.shape[1]))
    for _ in range(2):  # twice is enough for orthogonality to rounding (Giraud et al. 2005)
        drawn = drawn - (drawn @ rows.T) @ rows
        drawn = np.linalg.qr(drawn.T)[0].T
    return np.concatenate([rows, drawn])
