"""Initial factors for boards that train slices of the global adapter itself, at ranks of their own."""

from __future__ import annotations

import numpy as np

from aggregator.merge.low_rank.approximation import completed
from aggregator.merge.state import F32, F64, Factors, WeightState

_INDEPENDENT = 1e-3
"""Part of a basis row that lies outside of what is held already, below which it says nothing new: rows are float32 and
were sent in bf16."""


def initial_factors(weight: WeightState, rank: int, seed: int, *, along_basis: bool = False) -> Factors:
    """The leading `rank` strands of the global adapter, b (m, rank) and a (rank, n) in float32.

    Of an adapter that was truncated these are the best approximation of that rank, B carrying the singular values
    (FlexLoRA's way, arXiv 2402.11505); of a pair of averaged factors they are its leading columns and rows
    (HetLoRA's way, arXiv 2401.06432). Strands that the adapter lacks begin like LoRA's: B = 0, rows of A random, the
    same for boards of every rank; `along_basis`: the leading rows of the weight's basis, as far as they are new.
    """
    held = weight.frozen_a.shape[0]
    if rank <= held:
        return Factors(weight.frozen_b[:, :rank], weight.frozen_a[:rank])
    b = np.concatenate([weight.frozen_b, np.zeros((len(weight.frozen_b), rank - held), np.float32)], axis=1)
    return Factors(b, np.concatenate([weight.frozen_a, _new_rows(weight, seed, along_basis)[: rank - held]]))


def _new_rows(weight: WeightState, seed: int, along_basis: bool) -> F32:
    """All the rows that the adapter lacks up to the largest rank, however many are asked for: boards of unequal rank
    must train the same row i."""
    held = np.linalg.qr(weight.frozen_a.astype(np.float64).T)[0].T  # orthonormal rows: a pair of means has none
    rows = np.concatenate([held, _outside(weight.basis.astype(np.float64), held)]) if along_basis else held
    return completed(rows, len(weight.basis), seed)[len(held) :].astype(np.float32)


def _outside(basis: F64, held: F64) -> F64:
    """The parts of basis rows (R, n), in their order, outside of orthonormal rows (s, n): orthonormal, at most R."""
    left = basis - (basis @ held.T) @ held  # what each row has outside of what is held
    q, r = np.linalg.qr(left.T)
    lengths = np.diagonal(r)  # of each row outside of what is held and of the rows before it
    signs = np.where(lengths < 0, -1.0, 1.0)  # QR may turn a row round
    rows: F64 = (q * signs).T[np.abs(lengths) > _INDEPENDENT]
    return rows
