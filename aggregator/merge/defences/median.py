"""Coordinate-wise median: of each coordinate, the value in the middle of the boards'.

Source: Yin et al., "Byzantine-Robust Distributed Learning" (arXiv 1803.01498), Definition 1. What counts as a
coordinate: see `coordinates`.
"""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.merge.defences.coordinates import fits, one_board
from aggregator.merge.defences.defence import Filtered
from aggregator.merge.defences.trimmed_mean import trimmed
from aggregator.merge.state import F64
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits

__all__ = ["MIN_BOARDS", "SUMMARY", "filtered", "fits"]

SUMMARY = "of each number, the one in the middle; boards count alike (Yin et al. 2018)"
MIN_BOARDS = 3


def filtered(boards: Sequence[Contribution], traits: Traits, attackers: float) -> Filtered:
    """The median as one board."""
    return one_board(boards, traits, attackers, middle)


def middle(stacked: F64, n_bad: int) -> F64:
    """The median of (K, …) along the first axis; of an even number of boards, the mean of the two in the middle."""
    return trimmed(stacked, (len(stacked) - 1) // 2)
