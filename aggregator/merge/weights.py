"""Weights of boards: none counts as much more than the one in the middle of its cohort.

A board says itself on how many examples it has trained, and nobody can check it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median


def bounded_weights(weights: Sequence[float], times: float) -> tuple[float, ...]:
    """The weights, each at most `times` the cohort's middle one; as they are where `times` is 0.

    The middle one is the median, but of two boards the smaller: the mean of two is whatever one of them claims.

    Args:
        weights: of the boards that count in a round, each above 0.
        times: at least 1, or 0.
    """
    if not times or not weights:
        return tuple(weights)
    middle = min(weights) if len(weights) == 2 else median(weights)
    return tuple(min(weight, times * middle) for weight in weights)


def bounded_claims(claims: Mapping[str, float], times: float) -> dict[str, float]:
    """The same of boards by their names."""
    return dict(zip(claims, bounded_weights(list(claims.values()), times), strict=True))
