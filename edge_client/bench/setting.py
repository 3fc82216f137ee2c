"""A setting to measure, and the plan that this board would carry it out by."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from braid_common.base.t5_config import T5Config
from braid_common.units import show_size
from edge_client.errors import NoPlanError
from edge_client.host.board import Board
from edge_client.jobs.messages import Format, Plan, TrainingMode
from edge_client.plan.cache_budget import CacheBudget
from edge_client.plan.choose import choose
from edge_client.plan.situation import Constraints, Situation
from wire.default_run import DEFAULT_SETTINGS, run_info
from wire.manifest import t5_weights
from wire.run import RunInfo, Scope

CACHE_BYTES = 1 << 60
"""Disk for the encoder's output: nothing is kept there, so there is always enough."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Choices of the command line. `format` None leaves it to the planner."""

    format: Format | None
    scope: Scope
    micro_batch: int
    source_tokens: int
    target_tokens: int
    rank: int

    def run(self, base: T5Config) -> RunInfo:
        """A run as `aggregator init` writes it, but that every weight is trained at this rank."""
        settings = msgspec.structs.replace(
            DEFAULT_SETTINGS,
            scope=self.scope,
            batch=self.micro_batch,
            micro_batch=self.micro_batch,
            local_steps=1,
            max_source_tokens=self.source_tokens,
            max_target_tokens=self.target_tokens,
            rank=self.rank,
        )
        return run_info(t5_weights(base, self.scope), settings, max_rank=self.rank)

    def allows(self, mode: TrainingMode) -> bool:
        """Whether a mode is the one to measure. In decoder scope the encoder's output is always there already."""
        return (
            mode.micro_batch == self.micro_batch
            and self.format in (None, mode.format)
            and (mode.cache != "none") == (self.scope == "decoder")
        )


def plan_setting(setting: Setting, board: Board, base: T5Config, model: str) -> Plan:
    """The plan of most worth for a setting. `model` names the base for people. Raises NoPlanError where none fits."""
    situation = Situation(board, setting.run(base), base, CacheBudget(CACHE_BYTES, n_train=setting.micro_batch))
    try:
        return choose(situation, Constraints(allows=setting.allows)).plan
    except NoPlanError as error:
        raise NoPlanError(
            f"{model} does not fit: measuring it needs about {show_size(error.needed_bytes)}, this board has "
            f"{show_size(board.memory_bytes)} ({board.memory_source})",
            "take a smaller --shape, --micro-batch or --format, shorter texts, or give more --memory",
            needed_bytes=error.needed_bytes,
        ) from error
