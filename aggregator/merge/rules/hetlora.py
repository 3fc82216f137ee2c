"""HetLoRA: A and B averaged each for itself, padded with zeros to equal ranks; boards prune their own rank.

    B_k, A_k begin at the leading r_k columns of B_g and rows of A_g
    B_g ← Σ p_k · pad(B_k)      A_g ← Σ p_k · pad(A_k)      p_k ∝ n_k · ‖B_k·A_k‖_F over the boards that trained it

Source: HetLoRA (arXiv 2401.06432): zero-padding, truncation, weights by the Frobenius norm of the product ("sparsity
weighted"), and self-pruning, which is the board's part. The paper's p_k has no n_k; ours has, as in every other rule,
so that equal example counts give the paper's. Norms are taken per weight. B_g·A_g is not the mean of products.
"""

from __future__ import annotations

import math

import numpy as np

from aggregator.merge.bases import first_basis, next_version
from aggregator.merge.pair_total import PairSum, PairTotal, fold_pairs
from aggregator.merge.slices import cut_start
from aggregator.merge.state import F64, AdapterState, Factors, WeightState
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from aggregator.merge.targets import stepped_to_pair
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="A and B averaged each, padded with zeros and weighted by norm; boards prune their own rank; not exact",
    space="factors",
    cycle=("both",),
    has_start=True,
    is_change=False,
    prunes=True,
)

cut = cut_start


def fold(total: PairTotal | None, added: Contribution) -> PairTotal:
    """The sums with one more board. Neither argument changes."""
    return fold_pairs(total, added, _by_norm)


def merge(state: AdapterState, total: PairTotal, settings: MergeSettings) -> AdapterState:
    """The next version. A weight that nobody trained, or whose products are all zero, stays as it was. Raises
    ValueError where the sum does not fit the state (screened updates always do)."""
    total.check_names(state, total.pairs)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped_to_pair(weight, _mean(total.pairs.get(name)), settings)

    return next_version(state, total, settings, step)


def _by_norm(weight: float, pair: Factors) -> float:
    """weight · ‖b·a‖_F, by tr(bᵀb·aaᵀ): no m × n matrix is formed."""
    b, a = pair.b.astype(np.float64), pair.a.astype(np.float64)
    # ‖b·a‖² = tr(aᵀbᵀba) = Σ over the entries of (bᵀb)∘(aaᵀ), both (r, r)
    square = float(np.sum((b.T @ b) * (a @ a.T)))
    return weight * math.sqrt(max(0.0, square))  # of a zero product rounding may leave less than zero


def _mean(total: PairSum | None) -> tuple[F64, F64] | None:
    if total is None or not total.coverage[0] > 0:
        return None
    return total.b / total.coverage[0], total.a / total.coverage[0]
