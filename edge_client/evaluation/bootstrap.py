"""Bootstrap intervals of ratios of sums over examples.

Efron 1979; compared pairwise over one test set as in Koehn 2004 (W04-3250): every resample draws examples, and each
draw counts for all columns alike, so that what two systems find hard in common does not blur their difference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

RESAMPLES = 1000
"""Draws of a whole test set, Koehn's number. Each end of a 95 % interval then has 25 draws outside."""

CONFIDENCE = 0.95
"""Share of test sets like this one whose interval holds the true value."""

LEAST_EXAMPLES = 2
"""A single example tells nothing about others."""

_VALUES_AT_ONCE = 1 << 21
"""Counts that are in memory together: 16 MiB."""


def intervals(values: F64, weights: F64, *, seed: int, resamples: int = RESAMPLES) -> F64:
    """Percentile intervals of Σ values / Σ weights, for each column.

    Args:
        values: (examples, columns) float64, numerators; each column is a statistic of its own.
        weights: (examples, columns) float64, denominators, ≥ 0.
        seed: of the draws; the same seed and number of examples give the same draws.
        resamples: how many draws.

    Returns:
        (columns, 2) float64: low and high end. NaN for a column without weight, and for all columns where there are
        fewer than LEAST_EXAMPLES examples. Draws that give a column no weight are left out of it.
    """
    n = len(values)
    if n < LEAST_EXAMPLES:
        return np.full((values.shape[1], 2), np.nan)
    rng = np.random.default_rng(seed)
    at_once = max(1, _VALUES_AT_ONCE // n)
    ratios = np.concatenate(
        [
            _ratios(_counts(rng, min(at_once, resamples - first), n), values, weights)
            for first in range(0, resamples, at_once)
        ]
    )
    ends = np.full((values.shape[1], 2), np.nan)
    outside = 100 * (1 - CONFIDENCE) / 2
    for column in range(values.shape[1]):
        drawn = ratios[:, column]
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn):
            ends[column] = np.percentile(drawn, [outside, 100 - outside])
    return ends


def _counts(rng: np.random.Generator, resamples: int, n: int) -> F64:
    """How often each of n examples is drawn in each resample: (resamples, n)."""
    drawn = rng.integers(n, size=(resamples, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(np.float64)


def _ratios(counts: F64, values: F64, weights: F64) -> F64:
    """Σ values / Σ weights of each resample and column; NaN where there is no weight."""
    total = counts @ weights
    ratios: F64 = np.divide(counts @ values, total, out=np.full_like(total, np.nan), where=total > 0)
    return ratios
