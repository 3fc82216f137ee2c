"""What a round asks of boards. It holds for all that are trained for the round, also for what comes late."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.config import RunConfig
from wire.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Asked:
    """`version`: what boards train on. `seed` names Ω and the data order; `sketch`: updates carry gradient sketches."""

    round: int
    version: int
    seed: int
    sketch: bool


def asked_of(config: RunConfig, round_id: int, version: int) -> Asked:
    """A round asks for sketches every `sketch_every` rounds, and never if it is the last, which needs no basis."""
    return Asked(
        round=round_id,
        version=version,
        seed=derive_seed(config.seed, "round", round_id),
        sketch=round_id % config.sketch_every == 0 and round_id < config.rounds,
    )
