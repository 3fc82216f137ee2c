"""A run's settings: run.toml as one frozen `RunConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.step import MergeSettings
from wire.messages import TrainSettings

FROZEN = (
    *("model_digest", "train_scope", "train_importance", "train_rank", "targets"),
    *("rule", "max_rank", "server_rank", "optimiser", "seed"),
)
"""What a run may not change once its first board has enrolled: boards' files and bases depend on it."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """run.toml, checked. Field names are those of the file where they are unique."""

    name: str
    seed: int
    rounds: int
    model_path: Path
    model_id: str
    model_digest: str
    targets: tuple[str, ...]
    train: TrainSettings
    mode: str
    min_devices: int
    quorum: int
    deadline_s: float
    grace_s: float
    liveness_s: float
    profile_deadline_s: float
    staleness_limit: int
    staleness_power: float
    rule: str
    defence: str
    attackers: float
    server_rank: int
    max_rank: int
    optimiser: str
    eta: float
    sketch_every: int
    source: Path = field(default=Path("run.toml"), compare=False)

    @property
    def is_asynchronous(self) -> bool:
        return self.mode == "asynchronous"

    def frozen_values(self) -> dict[str, Any]:
        """The values that bind a run for its whole life, as JSON has them."""
        values = {
            key: getattr(self.train, key.removeprefix("train_")) if key.startswith("train_") else getattr(self, key)
            for key in FROZEN
        }
        return {**values, "targets": list(self.targets)}


def merge_settings(config: RunConfig) -> MergeSettings:
    """What a merge rule needs of run.toml."""
    optimiser = OPTIMISERS[config.optimiser]
    return MergeSettings(config.server_rank, config.max_rank, config.eta or optimiser.eta, optimiser)
