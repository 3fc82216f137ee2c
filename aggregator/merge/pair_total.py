"""A round of a rule that averages A and B each for itself: running sums of both, padded with zeros to equal ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from aggregator.merge.state import F64, Factors
from aggregator.merge.sums import Contribution, Gathered, gather, sum_padded


@dataclass(frozen=True, slots=True, eq=False)
class PairSum:
    """Σ v·pad(b), Σ v·pad(a), and per rank index i the Σ v over the boards that hold index i; r is the largest rank so
    far."""

    b: F64  # (m, r)
    a: F64  # (r, n)
    coverage: F64  # (r,), falling


@dataclass(frozen=True, slots=True, eq=False)
class PairTotal(Gathered):
    """The sums of a rule that averages A and B each: also a PairSum per weight, over the boards that trained it."""

    pairs: Mapping[str, PairSum] = field(default_factory=dict)


Weigh = Callable[[float, Factors], float]
"""Gives v, a board's weight in the sums of one weight matrix, from what the board counts and its factors there."""


def fold_pairs(total: PairTotal | None, added: Contribution, weigh: Weigh) -> PairTotal:
    """The sums with one more board. Neither argument changes."""
    before = total or PairTotal()
    pairs = dict(before.pairs)
    for name, pair in added.strands.items():
        pairs[name] = _added(pairs.get(name), pair, weigh(added.weight, pair))
    return PairTotal(**gather(before, added), pairs=MappingProxyType(pairs))


def by_weight(weight: float, _: Factors) -> float:
    """Boards count by their weight alone."""
    return weight


def _added(total: PairSum | None, pair: Factors, weight: float) -> PairSum:
    ones = np.ones((1, len(pair.a)), np.float32)
    b, a, coverage = (None, None, None) if total is None else (total.b, total.a.T, total.coverage[None])
    return PairSum(
        b=sum_padded(b, pair.b, weight),
        a=sum_padded(a, pair.a.T, weight).T,
        coverage=sum_padded(coverage, ones, weight)[0],
    )
