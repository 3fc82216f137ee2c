"""FLoRA: boards' adapters are stacked, which sums their products exactly, and merged into what is frozen.

    W_g ← W_g + Σ p_k · B_k·A_k  =  W_g + [p_1·B_1 | p_2·B_2 | …] · [A_1; A_2; …]        p_k = n_k / Σ n

Source: FLoRA (arXiv 2409.05976), whose boards begin a new adapter each round. It sends the stack to every board (Σ r_k
strands down), which merges it into its copy of the base. A quantised base cannot take it: here the server adds it to
the context instead, which is the same model as long as the sum of all ranks so far fits server_rank; beyond that the
best approximation of that rank is kept, and FLoRA's exactness ends.

One mathematics with `fresh`, of which this is the case without a server step: η is 1 and no optimiser acts.
"""

from __future__ import annotations

from aggregator.merge.bases import first_basis
from aggregator.merge.product_total import ProductTotal, fold_products, merge_changes
from aggregator.merge.slices import cut_context
from aggregator.merge.state import AdapterState
from aggregator.merge.step import MergeSettings
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="boards' new adapters are stacked and added whole (FLoRA): as fresh, without a server step",
    space="products",
    cycle=("both",),
    own_basis=True,
    server_step=False,
)

cut = cut_context
fold = fold_products


def merge(state: AdapterState, total: ProductTotal, settings: MergeSettings) -> AdapterState:
    """The next version; of the settings only the ranks count. Raises ValueError where the sum does not fit the
    state (screened updates always do)."""
    plain = MergeSettings(server_rank=settings.server_rank, max_rank=settings.max_rank)
    return merge_changes(state, total, plain)
