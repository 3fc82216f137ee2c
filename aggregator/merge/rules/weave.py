"""Woven strands: boards train the leading strands of the global adapter itself, beside the frozen rest of it.

    B⁰_k·A⁰_k = the r_k leading strands of W_g, as board k was sent them;  the others stay under them as context
    W_g ← truncate_{R_s}( W_g + η · Σ p_k · (B_k·A_k − B⁰_k·A⁰_k) )     p_k = n_k / Σ n over the accepted updates

`delta` with the one thing that it lacks: a board sees the whole global adapter, whatever its rank, and so corrects what
the model really does. Ours; starts are FlexLoRA's (arXiv 2402.11505), the mean of changes is FedBuff's (arXiv
2106.06639), the frozen rest is `braid`'s context. The strands that are trained carry the largest singular values, so
that a step of A moves W_g as far as one of B does; beside a frozen context, where B begins at zero, training A gains
nothing (docs/merging.md).
"""

from __future__ import annotations

from aggregator.merge.bases import first_basis
from aggregator.merge.product_total import fold_changes, merge_changes
from aggregator.merge.slices import cut_woven
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="boards train the adapter's leading strands beside the frozen rest; the mean of what they changed is added",
    space="products",
    cycle=("both",),
    has_start=True,
)

cut = cut_woven
fold = fold_changes
merge = merge_changes
