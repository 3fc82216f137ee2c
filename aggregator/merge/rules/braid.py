"""Shared strands: boards of unequal rank train B on leading rows of one shared basis, the server sums.

    W_g  ← truncate_{R_s}( W_g + η · (Σ p_k · pad(B_k)) · A_t )      p_k = n_k / Σ n over the cohort's accepted updates
    A_{t+1}, σ  ← right singular vectors and values of Σ p_k · Y_k     kept where no board sketched the weight

Sources: frozen A with only B sent is FFA-LoRA (arXiv 2403.12313), an orthonormal A refactored by the server FedSVD
(arXiv 2505.12805), A from a gradient's singular vectors LoRA-GA (arXiv 2407.05000). Sharing one *ordered* basis that
boards cut at their own rank is ours; docs/concepts/merging.md has the reasons and the invariants.
"""

from __future__ import annotations

from aggregator.merge.bases import first_basis, next_version
from aggregator.merge.slices import cut_basis
from aggregator.merge.state import AdapterState, WeightState
from aggregator.merge.step import MergeSettings, stepped
from aggregator.merge.sums import BasisSum, fold_basis
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="boards train B on leading rows of one shared, ordered basis; sums are exact at any mix of ranks",
    space="basis",
    sketches=True,
)

cut = cut_basis
fold = fold_basis


def merge(state: AdapterState, total: BasisSum, settings: MergeSettings) -> AdapterState:
    """The next version: the mean step added to every weight's adapter, and a new basis where sketches came.

    A weight whose summed B is zero or absent keeps its adapter bit for bit. The mean is over all boards of the sum: one
    that did not train a weight counts as zero there. Raises ValueError where the sum does not fit the state (screened
    updates always do).
    """
    total.check_names(state, total.b, total.stale)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped(weight, total.change(name, weight), settings)

    return next_version(state, total, settings, step)
