"""FlexLoRA (arXiv 2402.11505): the mean of the boards' products, cut to each board's rank by SVD. Dense."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def sent(w: F64, rank: int, rng: np.random.Generator) -> tuple[F64, F64]:
    """(B (m, rank), A (rank, n)): W cut to a board's rank; directions that W lacks start like LoRA, B = 0, A random."""
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    b, a = u[:, :rank] * np.sqrt(s[:rank]), np.sqrt(s[:rank])[:, None] * vt[:rank]
    dead = np.linalg.norm(a, axis=1) < 1e-6
    a[dead] = rng.standard_normal((int(dead.sum()), a.shape[1])) / np.sqrt(a.shape[1])
    b[:, dead] = 0
    return b, a


def merged(boards: Sequence[tuple[float, F64, F64]]) -> F64:
    """Σ p_k·B_k·A_k for boards (p, B, A)."""
    result = np.zeros((boards[0][1].shape[0], boards[0][2].shape[1]))
    for p, b, a in boards:
        result += p * (b @ a)
    return result
