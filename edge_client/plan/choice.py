"""A way of training with its strands, and all that it would cost: what a planner compares and people are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_client.jobs.messages import Plan
from edge_client.plan.peak_memory import Breakdown
from edge_client.plan.round_cost import RoundLimits


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate that was looked at.

    Attributes:
        plan: what the board would do.
        memory: where its memory goes, as predicted; `Plan.predicted_peak_bytes` is after calibration.
        n_strands, n_strands_in_all: trained here, and of the run.
        rank: that every board trains every weight at, as far as the weight can; 0 where boards choose, or this one has
            pruned weights.
        pruned: the ranks that earlier rounds have pruned weights to, by name, which no candidate exceeds.
        is_ranked: whether the run has a ranking; before that every strand counts the same.
        share: of the run's importance that these strands have.
        worth: the share, less what the format loses and what slowness counts; 0 to 1.
        operations: floating-point operations of a round whose texts are all as long as the run allows.
        round_bytes: down and up in a round at most.
        round_s: seconds of a round at most, None where the board's speed is not known.
        batch: examples of an optimiser step.
    """

    plan: Plan
    memory: Breakdown
    n_strands: int
    n_strands_in_all: int
    rank: int
    pruned: Mapping[str, int]
    is_ranked: bool
    share: float
    worth: float
    operations: float
    round_bytes: float
    round_s: float | None
    batch: int

    @property
    def fits(self) -> bool:
        return self.plan.predicted_peak_bytes <= self.plan.budget_bytes

    @property
    def accumulation(self) -> int:
        """Micro-batches whose gradients are added up for one optimiser step."""
        return -(-self.batch // self.plan.micro_batch)

    def keeps(self, limits: RoundLimits) -> bool:
        """Whether a round stays within the limits on time and traffic."""
        in_time = limits.round_s is None or self.round_s is None or self.round_s <= limits.round_s
        return in_time and (limits.round_bytes is None or self.round_bytes <= limits.round_bytes)


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """A candidate that lost: in which it differs ("int8 base", "checkpointing"), and the sentence that says why."""

    kind: str
    choice: Choice
    reason: str
