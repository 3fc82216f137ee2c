"""What one board adds to a round, and the plain sums of it that linear rules keep: Σ n_k·pad(B_k) and Σ n_k·Y_k.

Of the profiles' scores as well: Σ n_k·(share of each weight in the scores of board k).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from aggregator.merge.state import F32, F64
from wire.messages import NamedTensor, Profile, Update
from wire.tensors import unpack


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """What one board adds to a round. Names are weights; those it did not train, sketch or score are absent.

    `shares`: what part of the board's importance each weight has, in sum 1. Only a profile has them, and only in a run
    whose importance is a score.
    """

    n_examples: int
    b: Mapping[str, F32]  # (m, r)
    sketches: Mapping[str, F32]  # (R, n)
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class RoundSum:
    """Running plain sums of a round: Σ n_k·pad(B_k), Σ n_k·Y_k, Σ n_k·share_k, Σ n_k and how many boards.

    float64: a bf16 value times an example count is exact in it, and sums of a thousand nearly so; the order in which
    boards arrive, or a restart that folds them again, then changes nothing that float32 can show. B is as wide as the
    largest rank folded so far. Memory does not depend on the number of boards.
    """

    n_examples: int
    n_updates: int
    b: Mapping[str, F64]  # (m, largest r so far)
    sketches: Mapping[str, F64]  # (R, n)
    shares: Mapping[str, float] = field(default_factory=dict)


def contribution(update: Update) -> Contribution:
    """The arrays of a screened update. Raises WireError where a value is not finite."""
    trained = {part.name: unpack(part.b) for part in update.parts if part.b.shape[1] > 0}
    sketches = {part.name: unpack(part.sketch) for part in update.parts if part.sketch is not None}
    return Contribution(n_examples=update.n_examples, b=trained, sketches=sketches)


def profile_contribution(profile: Profile) -> Contribution:
    """The sketches of a screened profile, weighted as in a round, and its scores as shares of their sum.

    Raises WireError where a value is not finite.
    """
    sketches = _arrays(profile.sketches)
    return Contribution(n_examples=profile.n_examples, b={}, sketches=sketches, shares=_shares(profile))


def _shares(profile: Profile) -> dict[str, float]:
    """A board says what part each weight has: whatever the scale of its scores, it cannot drown the other boards."""
    if not profile.scores:
        return {}
    total = sum(profile.scores)
    names = (named.name for named in profile.sketches)
    return {name: score / total for name, score in zip(names, profile.scores, strict=True)}


def _arrays(tensors: Iterable[NamedTensor]) -> dict[str, F32]:
    return {named.name: unpack(named.tensor) for named in tensors}


def fold(total: RoundSum | None, added: Contribution) -> RoundSum:
    """The sums with one more board. Neither argument changes; the order of boards does not matter to rounding."""
    before = total or RoundSum(n_examples=0, n_updates=0, b={}, sketches={})
    return RoundSum(
        n_examples=before.n_examples + added.n_examples,
        n_updates=before.n_updates + 1,
        b=_folded(before.b, added.b, added.n_examples),
        sketches=_folded(before.sketches, added.sketches, added.n_examples),
        shares=_folded_shares(before.shares, added),
    )


def _folded(sums: Mapping[str, F64], blocks: Mapping[str, F32], weight: int) -> Mapping[str, F64]:
    result = dict(sums)
    for name, block in blocks.items():
        result[name] = _sum_padded(sums.get(name), block, weight)
    return MappingProxyType(result)


def _folded_shares(sums: Mapping[str, float], added: Contribution) -> Mapping[str, float]:
    result = dict(sums)
    for name, share in added.shares.items():
        result[name] = result.get(name, 0.0) + added.n_examples * share
    return MappingProxyType(result)


def _sum_padded(total: F64 | None, block: F32, weight: int) -> F64:
    """total (m, r) + weight·block (m, r'), the narrower one padded with zero columns."""
    scaled = block.astype(np.float64) * weight
    if total is None:
        return scaled
    wide, narrow = (total, scaled) if total.shape[1] >= scaled.shape[1] else (scaled, total)
    result: F64 = wide.copy()
    result[:, : narrow.shape[1]] += narrow
    return result
