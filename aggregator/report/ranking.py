"""The ranking of a run's weights: by importance, and how many strands of each carry it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aggregator.merge.state import F64, AdapterState

WORTH_SHARE = 0.9
"""Part of a weight's importance that its strands worth having hold together: the next ones add a tenth at most."""


@dataclass(frozen=True, slots=True)
class RankedWeight:
    """`share`: part of all importance, 0 to 1. `worth`: leading strands that hold WORTH_SHARE of it, of `strands`."""

    name: str
    share: float
    worth: int
    strands: int


def ranking(state: AdapterState) -> tuple[RankedWeight, ...]:
    """Every weight, the most important first, equal ones in manifest order; () while no weight has a basis."""
    if not any(len(weight.basis) for weight in state.weights.values()):
        return ()
    total = sum(float(weight.values.sum()) for weight in state.weights.values())
    ranked = (_ranked(name, weight.values, total) for name, weight in state.weights.items())
    return tuple(sorted(ranked, key=lambda weight: -weight.share))


def _ranked(name: str, values: F64, total: float) -> RankedWeight:
    if not values.any():
        return RankedWeight(name, 0.0, 0, len(values))
    held = np.cumsum(values)
    worth = int(np.searchsorted(held, WORTH_SHARE * held[-1])) + 1
    return RankedWeight(name, float(held[-1]) / total, worth, len(values))
