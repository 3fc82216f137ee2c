"""Private bases: rows of A that a board draws for itself, in runs of a merge rule that shares none."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braid_common.seeds import derive_seed
from edge_client.jobs.messages import TrainJob


def private_basis(job: TrainJob) -> dict[str, Tensor]:
    """Draw the rows of A for one board and round.

    They are the Q of Gaussian rows, so that every subspace is equally likely. They depend on the round's seed, the
    board and the weight alone, so that a round that is resumed has the same again; at a lower rank they are the leading
    ones, to rounding.

    Returns:
        A (r, n) fp32 by weight, orthonormal rows, r the plan's rank.
    """
    spec = job.spec
    basis = {}
    for weight, rank in zip(job.run.weights, job.plan.ranks, strict=True):
        rng = np.random.default_rng(derive_seed(spec.seed, "basis", spec.round, job.board_id, weight.name))
        basis[weight.name] = torch.from_numpy(orthonormal_rows(rng, rank, weight.columns))
    return basis


def orthonormal_rows(rng: np.random.Generator, rank: int, columns: int) -> NDArray[np.float32]:
    """Draw orthonormal rows (rank, columns), every subspace equally likely."""
    # Of a QR decomposition the signs are arbitrary; with R's diagonal made positive, Q is a function of the draw.
    q, r = np.linalg.qr(rng.standard_normal((rank, columns)).T)
    rows: NDArray[np.float32] = (q * np.sign(np.diag(r))).T.astype(np.float32)
    return rows
