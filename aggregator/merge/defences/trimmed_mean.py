"""Trimmed mean: of each coordinate, the mean without the f largest and the f smallest values.

Source: Yin et al., "Byzantine-Robust Distributed Learning" (arXiv 1803.01498), Definition 2. f is how many of the
round's boards may be bad, also for coordinates that only some of them have: see `coordinates`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aggregator.merge.defences.coordinates import fits, one_board
from aggregator.merge.defences.defence import Filtered
from aggregator.merge.state import F64
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits

__all__ = ["MIN_BOARDS", "SUMMARY", "filtered", "fits"]

SUMMARY = "of each number, the mean without the largest and smallest ones; boards count alike (Yin et al. 2018)"
MIN_BOARDS = 3


def filtered(boards: Sequence[Contribution], traits: Traits, attackers: float) -> Filtered:
    """The trimmed mean as one board."""
    return one_board(boards, traits, attackers, trimmed)


def trimmed(stacked: F64, n_bad: int) -> F64:
    """The trimmed mean of (K, …) along the first axis, K > 2·n_bad."""
    mean: F64 = np.sort(stacked, axis=0)[n_bad : len(stacked) - n_bad].mean(axis=0)
    return mean
