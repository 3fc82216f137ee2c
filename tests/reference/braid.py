"""The default merge rule as one would write it on a blackboard: dense float64 matrices, full SVDs, no factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def best_approximation(w: F64, rank: int) -> F64:
    """The dense matrix of rank ≤ `rank` nearest to w (m, n) in Frobenius norm (Eckart–Young)."""
    u, s, vt = np.linalg.svd(w)
    result = np.zeros_like(w)
    for i in range(min(rank, len(s))):
        result += s[i] * np.outer(u[:, i], vt[i])
    return result


def merged(w: F64, basis: F64, boards: Sequence[tuple[int, F64 | None]], server_rank: int, eta: float) -> F64:
    """W_g (m, n) after a round. A board is (n_examples, B (m, r)), B None where it did not train this weight."""
    total = sum(n for n, _ in boards)
    step = np.zeros_like(w)
    for n, b in boards:
        if b is not None:
            padded = np.zeros((len(b), len(basis)))
            padded[:, : b.shape[1]] = b
            step += n / total * (padded @ basis)
    return best_approximation(w + eta * step, server_rank)


def strands(boards: Sequence[tuple[int, F64]], total: int, rank: int) -> tuple[F64, F64]:
    """Projector (n, n) onto the leading right singular vectors of Σ n_k·Y_k / total, and their σ² (rank,)."""
    mean = sum(n / total * y.astype(np.float64) for n, y in boards)
    _, s, vt = np.linalg.svd(mean)
    return vt[:rank].T @ vt[:rank], s[:rank] ** 2
