"""Woven strands: boards train the leading strands of the global adapter itself, beside the frozen rest of it.

    B⁰_k·A⁰_k = the r_k leading strands of W_g, as board k was sent them;  the others stay under them, frozen
    W_g ← truncate_{R_s}( W_g + η · Σ p_k · (B_k·A_k − B⁰_k·A⁰_k) )     p_k = n_k / Σ n over the accepted updates

`delta` with the one thing that it lacks: a board sees the whole global adapter, whatever its rank, and so corrects
what the model really does. The strands that are trained carry the largest singular values, so that a step of A moves
W_g as far as one of B does; beside a frozen adapter, where B begins at zero, training A gains nothing
(docs/results/merging.md).

Others' are: starts by SVD, FlexLoRA (arXiv 2402.11505); the mean of changes, FedBuff (arXiv 2106.06639). Neighbours:
Fed-PLoRA (arXiv 2602.16936) folds the rank-1 modules that a board does not train into its frozen base, and picks them
as they are, not by singular value; FedHL (arXiv 2505.18494) aggregates on the full-rank global model, against the bias
of truncation; FedMomentum (arXiv 2603.08014) restarts every round from the leading strands of the mean and merges the
residual into the backbone: at equal ranks, this rule with an unbounded R_s; PreLort (arXiv 2606.15963) trains nested
ranks on every board, so that signal gathers in the leading ones.

Ours is the combination, as far as we know: at any mix of ranks, each board trains the leading singular strands of one
global adapter beside all the rest of it, frozen, and the mean is of what the boards changed, so that it is exact, and a
board that changes nothing counts as nothing, bit for bit.
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
