"""A run as `aggregator init` writes it, for whoever needs a run that no server has: plans, measurements, benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wire.limits import MAX_NAME_CHARS, PROTOCOL_VERSION
from wire.manifest import manifest_digest
from wire.run import Base, RunInfo, TrainSettings, Weight

DEFAULT_SETTINGS = TrainSettings(
    scope="decoder",
    learning_rate=0.01,
    batch=16,
    micro_batch=4,
    local_steps=20,
    max_source_tokens=192,
    max_target_tokens=32,
    sketch_batches=8,
    importance="magnitude_gradient",
    seed=1,
)
"""What boards are told where run.toml is as `aggregator init` writes it; trains_a follows from its merge rule. Lengths,
which such a run chooses by its boards' texts, are those of the text that the builtin base learnt from."""

DEFAULT_MAX_RANK, DEFAULT_SERVER_RANK = 16, 16
"""Strands that a board may train of a weight, and rank of the global adapter, at most."""


def run_info(
    weights: Sequence[Weight],
    settings: TrainSettings = DEFAULT_SETTINGS,
    *,
    model: str = "builtin",
    max_rank: int = DEFAULT_MAX_RANK,
    server_rank: int = DEFAULT_SERVER_RANK,
    **others: Any,
) -> RunInfo:
    """A run over these weights. `others`: fields of RunInfo in place of those of a run's first round."""
    fields: dict[str, Any] = {
        "protocol": PROTOCOL_VERSION,
        "run_id": "unserved",
        "state": "training",
        "base": Base(model=model[:MAX_NAME_CHARS], digest="0" * 64),
        "weights": tuple(weights),
        "manifest": manifest_digest(weights),
        "settings": settings,
        "max_rank": max_rank,
        "server_rank": server_rank,
        "rounds": 1,
        "round": 1,
        "version": 1,
    }
    return RunInfo(**(fields | others))
