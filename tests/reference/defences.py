"""The defences as their papers write them: on whole dense matrices or vectors, in loops, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def krum_scores(points: Sequence[F64], n_bad: int) -> list[float]:
    """Blanchard et al. 2017: of each point, the summed squared distances to its n − f − 2 nearest others."""
    scores = []
    for i, point in enumerate(points):
        distances = sorted(float(np.sum((point - other) ** 2)) for j, other in enumerate(points) if j != i)
        scores.append(sum(distances[: len(points) - n_bad - 2]))
    return scores


def summed_distance(point: F64, points: Sequence[F64], weights: Sequence[float]) -> float:
    """What the geometric median minimises."""
    return sum(weight * float(np.linalg.norm(point - other)) for weight, other in zip(weights, points, strict=True))


def trimmed_mean(values: Sequence[float], n_bad: int) -> float:
    """Yin et al. 2018, Definition 2, of one coordinate."""
    ordered = sorted(values)
    kept = ordered[n_bad : len(ordered) - n_bad]
    return sum(kept) / len(kept)


def strand_by_strand(boards: Sequence[F64], n_bad: int) -> F64:
    """The trimmed mean of B's (m, r_k) of unequal rank, one entry after the other: over those that have the strand, in
    proportion to how many they are; zero where 2·f or fewer have it."""
    result = np.zeros((len(boards[0]), max(b.shape[1] for b in boards)))
    for column in range(result.shape[1]):
        there = [b for b in boards if b.shape[1] > column]
        if len(there) > 2 * n_bad:
            for row in range(len(result)):
                mean = trimmed_mean([b[row, column] for b in there], n_bad)
                result[row, column] = mean * len(there) / len(boards)
    return result
