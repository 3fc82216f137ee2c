"""RoLoRA: boards train B in one round and A in the next, and the factor that they trained is averaged.

    B_k, A_k begin at the leading r_k columns of B_g and rows of A_g
    rounds on versions 1, 3, …:  B_g[:, i] ← Σ_{k: r_k > i} p_ik · B_k[:, i]      A_g stays
    rounds on versions 2, 4, …:  A_g[i, :] ← Σ_{k: r_k > i} p_ik · A_k[i, :]      B_g stays
    p_ik = n_k / Σ_{j: r_j > i} n_j over the boards that trained the weight

Source: RoLoRA (arXiv 2409.02346), for boards of equal rank: the other factor being the same everywhere, the mean is
exact. For unequal ranks we take the mean of an index over the boards that hold it, as RBLA does (arXiv 2408.08699); an
index that nobody holds in a round stays.
"""

from __future__ import annotations

import numpy as np

from aggregator.merge.bases import first_basis, next_version
from aggregator.merge.pair_total import PairSum, PairTotal, by_weight, fold_pairs
from aggregator.merge.slices import cut_start
from aggregator.merge.state import F64, AdapterState, WeightState
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from aggregator.merge.targets import stepped_to_pair
from aggregator.merge.traits import Traits
from wire.messages import Trains

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="boards train B and A in turn, each averaged per rank index while the other rests (RoLoRA)",
    space="factors",
    cycle=("b", "a"),
    has_start=True,
    is_change=False,
)

cut = cut_start


def fold(total: PairTotal | None, added: Contribution) -> PairTotal:
    """The sums with one more board. Neither argument changes."""
    return fold_pairs(total, added, by_weight)


def merge(state: AdapterState, total: PairTotal, settings: MergeSettings) -> AdapterState:
    """The next version. A weight that nobody trained stays as it was. Raises ValueError where the sum does not fit the
    state (screened updates always do)."""
    total.check_names(state, total.pairs)
    trains = TRAITS.trains(state.version)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped_to_pair(weight, _alternated(weight, total.pairs.get(name), trains), settings)

    return next_version(state, total, settings, step)


def _alternated(weight: WeightState, total: PairSum | None, trains: Trains) -> tuple[F64, F64] | None:
    """The pair with the trained factor's means in front; of the other one those strands alone that the adapter had not
    yet, as all boards were sent them."""
    if total is None:
        return None
    mean_b, mean_a = total.b / total.coverage, total.a / total.coverage[:, None]
    kept_b, kept_a = weight.frozen_b.astype(np.float64), weight.frozen_a.astype(np.float64)
    if trains == "b":
        return _over(mean_b, kept_b), _over(kept_a.T, mean_a.T).T
    return _over(kept_b, mean_b), _over(mean_a.T, kept_a.T).T


def _over(front: F64, behind: F64) -> F64:
    """Columns of `front`, then those of `behind` that are further right."""
    return np.concatenate([front, behind[:, front.shape[1] :]], axis=1)
