"""Best low-rank approximations from factors, and orthonormal bases. Never forms an m × n matrix.

Inside everything is float64: a merge is a small part of a round's time, and float32 QR would cost a digit per round.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.state import F32, F64

_NOISE = 2.0**-30
"""Singular values below this part of the largest are rounding: inputs are float32, which resolves 2⁻²⁴."""


def truncate(b: NDArray[np.floating], a: NDArray[np.floating], rank: int) -> tuple[F32, F32]:
    """The best approximation of rank ≤ `rank` to b·a in Frobenius norm, as factors.

    Args: b (m, k) and a (k, n), any float dtype; k may exceed m and n, rows may repeat or be zero.
    Returns (b (m, s), a (s, n)) float32, s ≤ rank, without directions that are zero to rounding. The rows of a are
    orthonormal and ordered by singular value, which b carries: what happens to b happens to the product in the same
    norm, its column norms are the singular values, and leading columns are the best lower-rank approximation.
    Cost O((m + n)·k² + k³). Source: Eckart–Young; QR of stacked factors as in FLoRIST (arXiv 2506.09199).
    """
    q_b, r_b = np.linalg.qr(b.astype(np.float64))  # (m, p), (p, k)
    q_a, r_a = np.linalg.qr(a.astype(np.float64).T)  # (n, q), (q, k)
    u, s, vt = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    kept = min(rank, significant(s))
    rows, signs = with_signs(vt[:kept] @ q_a.T)
    columns = (q_b @ u[:, :kept]) * (s[:kept] * signs)
    return columns.astype(np.float32), rows.astype(np.float32)


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
