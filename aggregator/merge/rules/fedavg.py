"""FedIT, which is FedAvg on the factors: boards of equal rank, A and B averaged each for itself.

    B_g ← Σ p_k · B_k      A_g ← Σ p_k · A_k      p_k = n_k / Σ n over the boards that trained the weight

Source: FedIT (arXiv 2305.05644). B_g·A_g is not the mean of products: mean(B)·mean(A) has cross terms B_j·A_k.
Boards of unequal rank cannot be merged by it.
"""

from __future__ import annotations

from aggregator.merge.bases import first_basis, next_version
from aggregator.merge.pair_total import PairTotal, by_weight, fold_pairs
from aggregator.merge.slices import cut_start
from aggregator.merge.state import F64, AdapterState, WeightState
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from aggregator.merge.targets import stepped_to_pair
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="A and B averaged each, boards of equal rank only (FedIT); needs train.rank; not exact",
    space="factors",
    cycle=("both",),
    has_start=True,
    is_change=False,
    needs_equal_ranks=True,
)

cut = cut_start


def fold(total: PairTotal | None, added: Contribution) -> PairTotal:
    """The sums with one more board. Neither argument changes."""
    return fold_pairs(total, added, by_weight)


def merge(state: AdapterState, total: PairTotal, settings: MergeSettings) -> AdapterState:
    """The next version. A weight that nobody trained stays as it was. Raises ValueError where boards trained a weight
    at unequal ranks, or the sum does not fit the state."""
    total.check_names(state, total.pairs)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped_to_pair(weight, _mean(name, total), settings)

    return next_version(state, total, settings, step)


def _mean(name: str, total: PairTotal) -> tuple[F64, F64] | None:
    if name not in total.pairs:
        return None
    pair = total.pairs[name]
    if (pair.coverage != pair.coverage[0]).any():
        raise ValueError(f"boards trained {name} at unequal ranks, which fedavg cannot merge")
    return pair.b / pair.coverage[0], pair.a / pair.coverage[0]
