"""Memory that one board's training takes in one mode: predicted from shapes, and expected after calibration."""

from __future__ import annotations

from collections.abc import Sequence

from edge_client.jobs.messages import TrainingMode
from edge_client.plan.peak_memory import Breakdown, predict_peak, strand_marginal_bytes
from edge_client.plan.situation import Situation
from edge_client.plan.strand_selection import Memory


class MemoryOracle:
    """Answers what any strands would take."""

    def __init__(self, situation: Situation, mode: TrainingMode) -> None:
        self._situation, self._mode = situation, mode

    def predicted(self, ranks: Sequence[int]) -> Breakdown:
        """The worker's peak from shapes alone, in bytes, part by part."""
        situation = self._situation
        return predict_peak(situation.base, situation.run, self._mode, ranks, situation.rewards)

    def expected_bytes(self, ranks: Sequence[int]) -> int:
        """The worker's peak, calibrated by what this board measured."""
        return self._situation.calibration.expected_bytes(self._mode, self.predicted(ranks).total_bytes)

    def budget(self, limit_bytes: int) -> Memory:
        """Memory as strands are selected under it."""
        situation, mode = self._situation, self._mode
        ratio = situation.calibration.ratio(mode)
        most = [ratio * size for size in strand_marginal_bytes(situation.base, situation.run, mode)]
        return Memory(self.expected_bytes, limit_bytes, most)
