"""The rows that a board draws for itself, in runs of a merge rule that shares none."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from braid_common.seeds import derive_seed
from edge_client.jobs.messages import Job


def own_basis(job: Job) -> dict[str, Tensor]:
    """A (r, n) fp32 of every weight of the run, orthonormal rows as the plan has ranks: the Q of Gaussian rows, so that
    every subspace is equally likely.

    The same again on this board for this round, so that a round goes on where it was; with fewer rows, the leading
    ones, to rounding.
    """
    spec = job.spec
    drawn = {}
    for weight, rank in zip(job.run.weights, job.plan.ranks, strict=True):
        rng = np.random.default_rng(derive_seed(spec.seed, "basis", spec.round, job.device, weight.name))
        q, r = np.linalg.qr(rng.standard_normal((rank, weight.columns)).T)
        drawn[weight.name] = torch.from_numpy((q * np.sign(np.diag(r))).T.astype(np.float32))
    return drawn
