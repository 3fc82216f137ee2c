"""Best low-rank approximations of sums of products and of matrices, and orthonormal bases.

Large ones are searched for their leading directions in float32 (lanczos.py). All else is float64: singular
vectors come from the eigenvectors of Gram matrices, and a matrix c is projected on them, so what an inexact one costs
is at most 2⁻²⁶ of the largest singular value (the square root of float64's 2⁻⁵²), less than float32 resolves. They take
half to two thirds of the time of a QR of both sides and an SVD of the core.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.low_rank.lanczos import leading
from aggregator.merge.low_rank.matrix_sum import LowRankSum, Product, multiplied, stacked
from aggregator.merge.state import F32, F64

_NOISE = 2.0**-24
"""Singular values below this part of the largest are rounding: inputs and results are float32, which resolves this."""

_EXTRA = 4
"""Vectors of a search for leading directions beyond those that are wanted: these converge the faster for it."""

_WORTH = 3
"""Blocks of vectors, of which twice as many must fit into the rank of the product: all directions of a smaller one are
found as fast, and those of a larger one as fast as with more blocks than that."""

_SEED = 20
"""Seed of the random vectors that a search for leading directions starts with."""


def truncate(b: NDArray[np.floating], a: NDArray[np.floating], rank: int) -> tuple[F32, F32]:
    """The best approximation of rank ≤ `rank` to b·a in Frobenius norm, as factors: see `truncate_sum`."""
    return truncate_sum((Product(1.0, b, a),), rank)


def truncate_sum(terms: LowRankSum, rank: int) -> tuple[F32, F32]:
    """The best approximation of rank ≤ `rank` to a sum in Frobenius norm, as factors.

    The norm of what is left out is the least possible but for a part lanczos.MAX_LOST of it and for what float32 does
    not resolve of the terms. Cost O((m + n)·k·rank), k the ranks together, where a few products with blocks of vectors
    tell the leading directions, else O((m + n)·k² + k³), without an m × n matrix while k is less than both.

    Source: Eckart–Young; a small core instead of dense matrices as in FLoRIST (arXiv 2506.09199).

    Args:
        terms: at least one, of any float dtype; their ranks may exceed m and n, rows may repeat or be zero.
        rank: the largest rank of the result.

    Returns:
        b (m, s) and a (s, n) in float32, s ≤ rank, without directions that are zero to rounding. The rows of a are
        orthonormal and ordered by singular value, which b carries: what happens to b happens to the product in the same
        norm, its column norms are the singular values, and leading columns are the best lower-rank approximation.

    Raises:
        LinAlgError: a value is not finite.
    """
    products = [one for one in terms if isinstance(one, Product)]
    if len(products) < len(terms):  # what is dense is float32, and rounded as often as this is
        return truncate_dense(multiplied(terms, np.float32), rank)
    if sum(len(one.a) for one in products) >= min(terms[0].shape):  # the matrix is no larger than its factors
        wide = multiplied(terms, np.float64)
        return truncate_dense(wide, rank)
    found = _by_lanczos(stacked(products, np.float32), rank)
    return _finished(found[1], found[0].T) if found is not None else _from_factors(*stacked(products, np.float64), rank)


def truncate_dense(w: NDArray[np.floating], rank: int) -> tuple[F32, F32]:
    """The best approximation of rank ≤ `rank` to a matrix w (m, n), as factors: see `truncate_sum`.

    By eigenvectors of the smaller of wᵀ·w and w·wᵀ: a third of a dense SVD's time where all of them must be found and a
    fifteenth where not.
    """
    found = _by_lanczos((w.astype(np.float32, copy=False),), rank)
    if found is not None:
        return _finished(found[1], found[0].T)
    wide = w.astype(np.float64, copy=False)
    if len(w) < w.shape[1]:
        u, rows = _decomposed(wide.T, rank)
        return _from_factors(u, rows.T, rank)
    v, columns = _decomposed(wide, rank)
    return _finished(columns, v.T)


def _from_factors(b: F64, a: F64, rank: int) -> tuple[F32, F32]:
    """The best factors of b·a, found from all of its directions."""
    if len(a) > 2 * rank:  # the product on its leading left vectors: half the time of an orthonormal basis of all rows
        c = b @ np.asarray(np.linalg.qr(a.T, mode="r")).T  # b·a·q: the same left vectors and singular values, (m, k)
        u = np.linalg.qr(_decomposed(c, rank)[1])[0]
        b, a = u, (u.T @ b) @ a
    q, r = np.linalg.qr(a.T)  # (n, k), (k, k): b·a = c·qᵀ with orthonormal columns of q
    v, columns = _decomposed(b @ r.T, rank)
    return _finished(columns, (q @ v).T)


def _decomposed(c: F64, rank: int) -> tuple[F64, F64]:
    """The leading right singular vectors of c (m, n), at most `rank`, as columns v (n, s), and c·v (m, s), from an
    eigendecomposition of cᵀ·c."""
    gram = _finite(c.T @ c)
    # eigh sorts upwards. Columns of c·v have the singular values as their norms, however inexact v is.
    v = np.linalg.eigh(gram).eigenvectors[:, ::-1][:, :rank]
    return v, c @ v


def _finite(array: F64) -> F64:
    """The array. Raises LinAlgError where it holds NaN or infinity."""
    if not np.isfinite(array).all():
        raise np.linalg.LinAlgError("a factor holds NaN, infinity or values whose squares float64 cannot hold")
    return array


def _by_lanczos(factors: tuple[F32, ...], rank: int) -> tuple[F32, F32] | None:
    """The leading right singular vectors of a product (m, n) of one factor or two, and its products with them; None
    where it is small, a value is not finite, or directions do not converge soon.

    The start is random, but always the same: nearly equal matrices have nearly equal results. Its rows are as long as
    those of the first factor: no board, knowing the others' sum as little as they do, can send what it misses.
    """
    width = rank + _EXTRA
    depths = min(factors[0].shape) // (2 * width)
    if depths < _WORTH:
        return None
    squares = np.einsum("ij,ij->i", factors[0], factors[0])
    if not squares.any():  # zero, or so small that float32 has no squares of it
        return None
    # Wᵀ times random rows, each as long as that of the first factor.
    start = _transposed(factors, _drawn(len(factors[0]), width) * np.sqrt(squares)[:, None])
    return leading(partial(_times, factors), partial(_transposed, factors), start, rank, depths)


@cache
def _drawn(rows: int, columns: int) -> F32:
    """Kept: there are few shapes, and drawing takes as long as a product with the matrix."""
    return np.random.default_rng(_SEED).standard_normal((rows, columns), np.float32)


def _times(factors: tuple[F32, ...], x: F32) -> F32:
    for factor in reversed(factors):
        x = factor @ x
    return x


def _transposed(factors: tuple[F32, ...], x: F32) -> F32:
    """The transposed product times x."""
    for factor in factors:
        x = factor.T @ x
    return x


def _finished(columns: NDArray[np.floating], rows: NDArray[np.floating]) -> tuple[F32, F32]:
    """Without directions whose singular value, the norm of its column, is rounding; with definite signs."""
    norms = np.linalg.norm(columns, axis=0)
    kept = norms > _NOISE * norms.max(initial=0)
    rows, signs = with_signs(np.ascontiguousarray(rows[kept]))
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
