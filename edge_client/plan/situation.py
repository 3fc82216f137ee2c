"""Situations that plans are made for, and constraints that they are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from braid_common.base.t5_config import T5Config
from edge_client.host.board import Board
from edge_client.jobs.messages import TrainingMode
from edge_client.jobs.reward_spec import Reward
from edge_client.plan.cache_budget import NO_CACHE, CacheBudget
from edge_client.plan.calibration import NO_CALIBRATION, Calibration
from edge_client.plan.pruning import NO_PRUNING
from edge_client.plan.round_cost import NO_LIMITS, RoundLimits
from wire.run import RunInfo

CLIENT_BYTES = 45 << 20
"""Memory kept for the network side, which lives beside the worker: what an idle client may take."""


@dataclass(frozen=True, slots=True)
class Situation:
    """One board in one run, as far as plans depend on it.

    Attributes:
        board: its memory, processors and device.
        run: what the server asks, and what strands are worth.
        base: sizes of the base model.
        cache: disk for the frozen encoder's output.
        limits: what a round may cost.
        calibration: what this board's own measurements make of predicted memory.
        rewards: what it judges answers by, in a run that learns from rewards.
    """

    board: Board
    run: RunInfo
    base: T5Config
    cache: CacheBudget = NO_CACHE
    limits: RoundLimits = NO_LIMITS
    calibration: Calibration = NO_CALIBRATION
    rewards: Sequence[Reward] = ()

    @property
    def budget_bytes(self) -> int:
        """Memory for the training worker."""
        return max(0, self.board.memory_bytes - CLIENT_BYTES)


def any_mode(mode: TrainingMode) -> bool:
    """Allow every mode."""
    return True


@dataclass(frozen=True, slots=True)
class Constraints:
    """Limits on the choice of a plan beside those of its situation.

    Attributes:
        kept_ranks: strands per weight of a round that was begun, which goes on in whatever mode is best now, without
            limits on the round; None where strands are chosen.
        pruned: ranks of weights by name that no candidate exceeds. What they leave of the budgets is not spent on other
            weights: pruning is to make the board's share smaller, not another.
        allows: whether a mode may be chosen.
    """

    kept_ranks: Sequence[int] | None = None
    pruned: Mapping[str, int] = field(default_factory=lambda: NO_PRUNING)
    allows: Callable[[TrainingMode], bool] = any_mode


FREE = Constraints()
"""Nothing narrows the choice."""
