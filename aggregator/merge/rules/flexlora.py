"""FlexLoRA: the mean of boards' products becomes the global adapter, which an SVD cuts to each board's rank.

    B_k, A_k begin at truncate_{r_k}(W_g)
    W_g ← truncate_{R_s}( Σ p_k · B_k·A_k )          p_k = n_k / Σ n over the boards that trained the weight

Source: FlexLoRA (arXiv 2402.11505), here without its α/r and without a dense ΔW. The mean is exact, but it is a mean of
absolute products: singular direction i shrinks by Σ_{k: r_k ≥ i} p_k in every round, though nobody trains.
"""

from __future__ import annotations

from aggregator.merge.bases import first_basis, next_version
from aggregator.merge.product_total import ProductTotal, fold_products
from aggregator.merge.slices import cut_start
from aggregator.merge.state import AdapterState, WeightState
from aggregator.merge.step import MergeSettings
from aggregator.merge.targets import stepped_to
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="the mean of boards' products, cut to each board's rank by SVD; shrinks what small boards do not hold",
    space="products",
    cycle=("both",),
    has_start=True,
    is_change=False,
)

cut = cut_start
fold = fold_products


def merge(state: AdapterState, total: ProductTotal, settings: MergeSettings) -> AdapterState:
    """The next version. A weight that nobody trained stays as it was. Raises ValueError where the sum does not fit the
    state (screened updates always do)."""
    total.check_names(state, total.products)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped_to(weight, total.target(name), settings)

    return next_version(state, total, settings, step)
