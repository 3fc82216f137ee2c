"""FedSVD: boards train B alone on one shared A, which the server takes anew from the SVD of the global adapter.

    W_g ← truncate_{R_s}( W_g + η · (Σ p_k · pad(B_k)) · A_t )          p_k = n_k / Σ n over the accepted updates
    A_{t+1} ← right singular rows of W_g by falling singular value, then random orthonormal rows

Source: FedSVD (arXiv 2505.12805), whose boards begin at B = U·S of the same SVD; here that is in the frozen adapter and
they train what is added to it, which is the same function of the same numbers. The first A is random. Note that right
singular rows of B·A lie in the row space of A: but for rows that W_g has no direction for, A only turns.

Values are those of gradient sketches, not of the rows of A: see `ffa`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aggregator.merge.bases import first_drawn_basis, next_version, with_values
from aggregator.merge.low_rank.approximation import completed
from aggregator.merge.slices import cut_basis
from aggregator.merge.state import AdapterState, WeightState
from aggregator.merge.step import MergeSettings, stepped
from aggregator.merge.sums import BasisSum, fold_basis
from aggregator.merge.traits import Traits
from braid_common.seeds import derive_seed

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="boards train B alone on one shared A, made anew each round from the adapter's own SVD (FedSVD)",
    space="basis",
)

first_basis = first_drawn_basis
cut = cut_basis
fold = fold_basis


def merge(state: AdapterState, total: BasisSum, settings: MergeSettings) -> AdapterState:
    """The next version. The mean is over all boards of the sum: one that did not train a weight counts as zero there,
    and a weight that nobody changed keeps its A. Raises ValueError where the sum does not fit the state."""
    total.check_names(state, total.b, total.stale)

    def step(name: str, weight: WeightState) -> WeightState:
        after = stepped(weight, total.change(name, weight), settings)
        return weight if after is weight else _refactored(after, derive_seed(state.version + 1, "basis", name))

    return next_version(state, total, settings, step, refresh=with_values)


def _refactored(weight: WeightState, seed: int) -> WeightState:
    """The weight with a basis of the right singular rows of its adapter, which `stepped` leaves in order."""
    basis = completed(weight.frozen_a.astype(np.float64), len(weight.basis), seed)
    return replace(weight, basis=basis.astype(np.float32))
