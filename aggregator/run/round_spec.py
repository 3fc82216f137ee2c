"""What a round asks of boards. It holds for all that are trained for the round, also for what comes late."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.merge.rules import RULES
from aggregator.settings.config import RunConfig
from braid_common.seeds import derive_seed


@dataclass(frozen=True, slots=True)
class Asked:
    """`version`: what boards train on. `seed` names Ω and the data order; `sketch`: updates carry gradient sketches."""

    round: int
    version: int
    seed: int
    sketch: bool


def asked_of(config: RunConfig, round_id: int, version: int) -> Asked:
    """A round asks for sketches every `sketch_every` rounds, where the rule makes bases of them, and never if it is the
    last, which needs no basis."""
    makes_basis = RULES[config.rule].TRAITS.sketches and round_id < config.rounds
    return Asked(
        round=round_id,
        version=version,
        seed=derive_seed(config.seed, "round", round_id),
        sketch=makes_basis and round_id % config.sketch_every == 0,
    )
