"""raFLoRA: FlexLoRA, but each rank index is averaged over those boards alone that hold it.

    B_k, A_k begin at truncate_{r_k}(W_g)
    W_g ← truncate_{R_s}( Σ_i  Σ_{k: r_k > i} p_ik · B_k[:, i]·A_k[i, :] )      p_ik = n_k / Σ_{j: r_j > i} n_j

Source: raFLoRA (arXiv 2602.13486), which cuts updates into partitions of ranks that the same boards hold, and weights
each partition by those boards. Index i here is column i of a board's B and row i of its A, as it holds them: it was
sent them in order of singular value. Boards that change nothing change nothing then. The other reading, a new SVD of
every board's product, would order what training left, but mixes directions of equal singular value.

The weights of an index are known only when all boards have come, so an index needs a sum of its own: a round takes up
to R times the memory of FlexLoRA's, though no more than that however many boards there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from aggregator.merge.bases import first_basis, next_version
from aggregator.merge.low_rank.matrix_sum import LowRankSum, scaled
from aggregator.merge.products import ProductSum, add, compacted, empty, low_rank_sum
from aggregator.merge.slices import cut_start
from aggregator.merge.state import AdapterState, Factors, WeightState
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution, Gathered, gather
from aggregator.merge.targets import stepped_to
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="as flexlora, but each rank index is averaged over the boards that hold it (raFLoRA)",
    space="products",
    cycle=("both",),
    has_start=True,
    is_change=False,
    sums_by_rank=True,
)

cut = cut_start


@dataclass(frozen=True, slots=True, eq=False)
class IndexSum:
    """The sums of one rank index of one weight: Σ w_k·b_k·a_k (m, n) and Σ w_k, over the boards that hold it."""

    product: ProductSum
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class IndexTotal(Gathered):
    """The sums of a round: what every rule has, and an IndexSum per weight and rank index."""

    indices: Mapping[str, tuple[IndexSum, ...]] = field(default_factory=dict)

    def compacted(self) -> IndexTotal:
        """All indices of one weight at a time: they mostly come to their length together."""
        long = (name for name, sums in self.indices.items() if any(one.product.is_long for one in sums))
        name = next(long, None)
        if name is None:
            return self
        shorter = tuple(
            replace(one, product=compacted(one.product)) if one.product.is_long else one for one in self.indices[name]
        )
        return replace(self, indices=MappingProxyType({**self.indices, name: shorter}))

    def target(self, name: str) -> LowRankSum:
        """Σ_i of the means of each index; no term where nobody trained the weight."""
        means = (scaled(low_rank_sum(index.product), 1 / index.weight) for index in self.indices.get(name, ()))
        return tuple(term for mean in means for term in mean)


def fold(total: IndexTotal | None, added: Contribution) -> IndexTotal:
    """The sums with one more board. Neither argument changes."""
    before = total or IndexTotal()
    indices = dict(before.indices)
    for name, product in added.strands.items():
        indices[name] = _added(indices.get(name, ()), product, added.weight)
    return IndexTotal(**gather(before, added), indices=MappingProxyType(indices))


def merge(state: AdapterState, total: IndexTotal, settings: MergeSettings) -> AdapterState:
    """The next version. A weight that nobody trained stays as it was. Raises ValueError where the sum does not fit the
    state (screened updates always do)."""
    total.check_names(state, total.indices)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped_to(weight, total.target(name), settings)

    return next_version(state, total, settings, step)


def _added(sums: tuple[IndexSum, ...], product: Factors, weight: float) -> tuple[IndexSum, ...]:
    rank = len(product.a)
    added = []
    for i in range(rank):
        strand = Factors(product.b[:, i : i + 1], product.a[i : i + 1])
        before, w = (sums[i].product, sums[i].weight) if i < len(sums) else (empty(strand), 0.0)
        added.append(IndexSum(add(before, strand, weight), w + weight))
    return (*added, *sums[rank:])
