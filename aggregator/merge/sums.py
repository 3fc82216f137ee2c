"""Contributions of boards, and the running sums that rules keep while they arrive: nothing is kept per board.

The profiles' scores are summed as well: Σ n_k·(share of each weight in the scores of board k).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypedDict, TypeVar

import numpy as np

from aggregator.merge.low_rank.matrix_sum import LowRankSum, Product, Term, scaled
from aggregator.merge.products import ProductSum, add, compacted, empty, first_long, low_rank_sum
from aggregator.merge.state import F32, F64, AdapterState, Factors, WeightState
from wire.messages import Trains


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """The part of one board in a round. Names are weights; those it did not train, sketch or score are absent.

    `weight`: how much the board counts beside others; its example count, less where something speaks against it, and
    more than 0 (ValueError): a board that is not to count is left out.
    `strands`: B (m, r) and A (r, n) as the board left them, whichever of the two it trained. `start`: what it began
    with, as it was sent; a weight without one began at B = 0. `staleness`: how many versions have been published
    since the one it was trained on. `shares`: what part of the board's importance each weight has, in sum 1. Only a
    profile has them, and only in a run whose importance is a score.
    """

    weight: float
    strands: Mapping[str, Factors] = field(default_factory=dict)
    start: Mapping[str, Factors] = field(default_factory=dict)
    sketches: Mapping[str, F32] = field(default_factory=dict)  # (R, n)
    shares: Mapping[str, float] = field(default_factory=dict)
    trains: Trains = "b"
    staleness: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"a board counts for more than 0 and finitely much, not {self.weight}")


G = TypeVar("G", bound="Gathered")


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Running plain sums of what every rule needs: Σ w_k, how many boards, Σ w_k·Y_k and Σ w_k·share_k.

    float64: a bf16 value times an example count is exact in it, and sums of a thousand nearly so; the order in which
    boards arrive, or a restart that folds them again, then changes nothing that float32 can show. Memory does not
    depend on the number of boards.
    """

    weight: float = 0.0
    n_updates: int = 0
    sketches: Mapping[str, F64] = field(default_factory=dict)  # (R, n)
    shares: Mapping[str, float] = field(default_factory=dict)

    def compacted(self: G) -> G:
        """The same sums, those of one weight in less memory; itself where none takes more than it should."""
        return self

    def check_names(self, state: AdapterState, *others: Mapping[str, object]) -> None:
        """Raise ValueError for a sum without weight, or one of names that the state (or any of `others`) lacks."""
        if not self.weight > 0:
            raise ValueError("a round without examples cannot be merged")
        names = set(self.sketches) | set(self.shares) | {name for other in others for name in other}
        if unknown := sorted(names - set(state.weights)):
            raise ValueError(f"{unknown[0]!r} is no weight of this run ({len(unknown)} such)")


class GatheredFields(TypedDict):
    """The fields of a Gathered, for those who have more."""

    weight: float
    n_updates: int
    sketches: Mapping[str, F64]
    shares: Mapping[str, float]


def gather(total: Gathered, added: Contribution) -> GatheredFields:
    """The sums that every rule has, with one more board. Neither argument changes."""
    return {
        "weight": total.weight + added.weight,
        "n_updates": total.n_updates + 1,
        "sketches": _with_arrays(total.sketches, added.sketches, added.weight),
        "shares": _with_shares(total.shares, added),
    }


def _with_arrays(sums: Mapping[str, F64], arrays: Mapping[str, F32], weight: float) -> Mapping[str, F64]:
    result = dict(sums)
    for name, array in arrays.items():
        result[name] = sum_padded(sums.get(name), array, weight)
    return MappingProxyType(result)


def _with_shares(sums: Mapping[str, float], added: Contribution) -> Mapping[str, float]:
    result = dict(sums)
    for name, share in added.shares.items():
        result[name] = result.get(name, 0.0) + added.weight * share
    return MappingProxyType(result)


def sum_padded(total: F64 | None, block: F32, weight: float) -> F64:
    """total (m, r) + weight·block (m, r'), the narrower one padded with zero columns."""
    scaled = block.astype(np.float64) * weight
    if total is None:
        return scaled
    wide, narrow = (total, scaled) if total.shape[1] >= scaled.shape[1] else (scaled, total)
    result: F64 = wide.copy()
    result[:, : narrow.shape[1]] += narrow
    return result


# --- rules whose boards train B on rows of one basis ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class BasisSum(Gathered):
    """The sums of a rule whose boards train B on one basis: also Σ w_k·pad(B_k) on the rows of the newest basis, as
    wide as the largest rank so far. Updates that were trained on an older one are summed as products with its rows."""

    b: Mapping[str, F64] = field(default_factory=dict)  # (m, largest r so far)
    stale: Mapping[str, ProductSum] = field(default_factory=dict)

    def compacted(self) -> BasisSum:
        name = first_long(self.stale)
        if name is None:
            return self
        return replace(self, stale=MappingProxyType({**self.stale, name: compacted(self.stale[name])}))

    def change(self, name: str, weight: WeightState) -> LowRankSum:
        """The mean ΔW of a weight, on the rows of its basis and those of older ones; no term where nobody trained it.
        Raises ValueError where B does not fit the basis."""
        terms: list[Term] = []
        if name in self.b:
            b = self.b[name]
            rank = b.shape[1]
            if rank > len(weight.basis) or len(b) != weight.shape[0]:
                raise ValueError(
                    f"B of shape {b.shape} does not fit basis {weight.basis.shape} of a {weight.shape} weight"
                )
            terms.append(Product(1.0, b, weight.basis[:rank]))
        if name in self.stale:
            terms += low_rank_sum(self.stale[name])
        return scaled(tuple(terms), 1 / self.weight) if terms else ()


def fold_basis(total: BasisSum | None, added: Contribution) -> BasisSum:
    """The sums with one more board. Neither argument changes; the order of boards does not matter to rounding."""
    before = total or BasisSum()
    b, stale = dict(before.b), dict(before.stale)
    for name, product in added.strands.items():
        if added.staleness:
            stale[name] = add(stale.get(name) or empty(product), product, added.weight)
        else:
            b[name] = sum_padded(b.get(name), product.b, added.weight)
    return BasisSum(**gather(before, added), b=MappingProxyType(b), stale=MappingProxyType(stale))
