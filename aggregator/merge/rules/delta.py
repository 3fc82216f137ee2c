"""Deltas: boards train the global adapter cut to their rank, and the mean of what they changed is added.

    B⁰_k·A⁰_k = truncate_{r_k}(W_g)                                    as board k was sent it, rounding included
    W_g ← truncate_{R_s}( W_g + η · Σ p_k · (B_k·A_k − B⁰_k·A⁰_k) )     p_k = n_k / Σ n over the accepted updates

FlexLoRA's starts (arXiv 2402.11505) with FedBuff's deltas (arXiv 2106.06639): what a small board was not sent it cannot
erase, and a board that changes nothing counts as nothing, bit for bit. A board sees only its cut of the global adapter,
so nobody corrects what lies beyond.
"""

from __future__ import annotations

from aggregator.merge.bases import first_basis
from aggregator.merge.product_total import fold_changes, merge_changes
from aggregator.merge.slices import cut_start
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="boards train the adapter cut to their rank, and the mean of what they changed is added",
    space="products",
    cycle=("both",),
    has_start=True,
)

cut = cut_start
fold = fold_changes
merge = merge_changes
