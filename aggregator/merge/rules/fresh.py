"""Fresh adapters: every board draws its own A each round and trains both factors over the frozen global adapter.

    W_g ← truncate_{R_s}( W_g + η · Σ p_k · B_k·A_k )      p_k = n_k / Σ n over the cohort's accepted updates

A_k: orthonormal random rows of board k's own, B_k from zero; the mean of products is exact at any mix of ranks.

Sources: merging each round's adapter into what is frozen and beginning a new one is ReLoRA (arXiv 2307.05695) and, with
several boards, FLoRA (arXiv 2409.05976), which stacks boards' factors, [p_1·B_1 | p_2·B_2 | …]·[A_1; A_2; …]: the same
sum. FLoRA sends the stack to every board, which merges it into its copy of the base; a quantised base cannot take it,
so here the server adds it to the frozen adapter, exactly as long as the ranks so far fit R_s. With η = 1 and no
optimiser this rule is FLoRA, and run.toml's `flora` is another name for it; the server's step is what FLoRA lacks.
"""

from __future__ import annotations

from aggregator.merge.bases import first_basis
from aggregator.merge.product_total import fold_products, merge_changes
from aggregator.merge.slices import cut_frozen
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="each board draws its own A every round, trains A and B beside the frozen adapter; eta 1 is FLoRA (flora)",
    space="products",
    cycle=("both",),
    own_basis=True,
)

cut = cut_frozen
fold = fold_products
merge = merge_changes
