"""Bounds on example counts and sketches, which every defence sets first: a board may claim of them what it likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from aggregator.merge.state import F32
from aggregator.merge.sums import Contribution
from aggregator.merge.weights import bounded_weights

MAX_WEIGHT = 3.0
"""A board counts as at most so many boards of the middle weight, where run.toml sets no bound: a count of examples
cannot be checked."""

MIN_SKETCHED = 3
"""Boards that must have sketched a weight, in a cohort that has them: its basis is no matter for one alone."""


def bounded(boards: Sequence[Contribution], max_weight: float = MAX_WEIGHT) -> tuple[Contribution, ...]:
    """The boards with weights of at most `max_weight` times the middle one, and each sketch drawn down to the median
    norm of those of its weight. A sketch that fewer than MIN_SKETCHED boards made, though there are as many, is
    dropped, and that weight keeps its basis.
    """
    weights = bounded_weights([board.weight for board in boards], max_weight)
    limits = _limits(boards)
    return tuple(
        replace(board, weight=weight, sketches=_drawn_down(board.sketches, limits))
        for board, weight in zip(boards, weights, strict=True)
    )


def _limits(boards: Sequence[Contribution]) -> dict[str, float]:
    """The largest norm of a sketch by weight; weights whose sketches are dropped are not in it."""
    norms: dict[str, list[float]] = {}
    for board in boards:
        for name, sketch in board.sketches.items():
            norms.setdefault(name, []).append(_norm(sketch))
    least = min(MIN_SKETCHED, len(boards))
    return {name: median(found) for name, found in norms.items() if len(found) >= least}


def _drawn_down(sketches: Mapping[str, F32], limits: Mapping[str, float]) -> dict[str, F32]:
    result = {}
    for name, sketch in sketches.items():
        if name in limits:
            norm = _norm(sketch)
            result[name] = sketch * np.float32(limits[name] / norm) if norm > limits[name] else sketch
    return result


def _norm(array: F32) -> float:
    return float(np.sqrt(np.sum(np.square(array, dtype=np.float64))))
