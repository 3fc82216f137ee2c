"""Limits that pruning in earlier rounds has left on a board's ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from wire.run import Weight

NO_PRUNING: Mapping[str, int] = MappingProxyType({})
"""No weight was pruned."""


def limited(ranks: Sequence[int], weights: Sequence[Weight], pruned: Mapping[str, int]) -> tuple[int, ...]:
    """`ranks` of `weights`, each at most what pruning has left."""
    return tuple(min(rank, pruned.get(weight.name, rank)) for rank, weight in zip(ranks, weights, strict=True))
