"""The settings of a run: run.toml, checked, as frozen values nested like its sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aggregator.merge.defences.bounds import MAX_WEIGHT
from aggregator.merge.defences.defended import NONE
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.step import MergeSettings
from wire.run import TrainSettings


@dataclass(frozen=True, slots=True)
class ModelSection:
    """The base model: `path` on this machine, `id` that boards pass to --model, `digest` that both sides compare;
    `revision` is its commit on the hub, "" for one that is not from there."""

    path: Path
    id: str
    digest: str
    revision: str = ""


@dataclass(frozen=True, slots=True)
class RoundsSection:
    """How rounds open and close, and what counts in them.

    `total` is run.rounds. `quorum` counts accepted updates; in an asynchronous run nobody is waited for once they have
    come: a round is a buffer of that many updates (FedBuff, arXiv 2106.06639).
    """

    total: int
    mode: str
    min_devices: int
    quorum: int
    deadline_s: float
    grace_s: float
    liveness_s: float
    profile_deadline_s: float
    staleness_limit: int
    staleness_power: float

    @property
    def is_asynchronous(self) -> bool:
        return self.mode == "asynchronous"


@dataclass(frozen=True, slots=True)
class MergeSection:
    """How updates become the next version; rule, defence and optimiser by their names."""

    rule: str
    defence: str
    attackers: float
    max_weight: float
    fairness: float
    drift: float
    server_rank: int
    max_rank: int
    optimiser: str
    eta: float
    sketch_every: int

    @property
    def weight_bound(self) -> float:
        """How many boards of the middle weight one may count as; 0 for no bound. A defence always has one."""
        return self.max_weight or (0.0 if self.defence == NONE else MAX_WEIGHT)

    @property
    def settings(self) -> MergeSettings:
        """The part of them that a merge rule is given. An eta of 0 is the optimiser's own."""
        optimiser = OPTIMISERS[self.optimiser]
        return MergeSettings(self.server_rank, self.max_rank, self.eta or optimiser.eta, optimiser)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """run.toml, checked. Field names are those of the file."""

    name: str
    seed: int
    model: ModelSection
    targets: tuple[str, ...]
    train: TrainSettings
    rounds: RoundsSection
    merge: MergeSection
    source: Path = field(default=Path("run.toml"), compare=False)

    def frozen_values(self) -> dict[str, Any]:
        """The values that a run may not change once its first board has enrolled, as JSON has them: boards' files and
        bases depend on them."""
        train, merge = self.train, self.merge
        return {
            "model.digest": self.model.digest,
            "train.scope": train.scope,
            "train.importance": train.importance,
            "train.rank": train.rank,
            "train.prefix": train.prefix,
            "train.truncate_source": train.truncate_source,
            "train.targets": list(self.targets),
            "merge.rule": merge.rule,
            "merge.max_rank": merge.max_rank,
            "merge.server_rank": merge.server_rank,
            "merge.optimiser": merge.optimiser,
            "run.seed": self.seed,
        }
