"""The specification of each round, made of run.toml. It holds for all updates of the round, also for late ones."""

from __future__ import annotations

from aggregator.merge.rules import RULES
from aggregator.settings.config import RunConfig
from braid_common.seeds import derive_seed
from wire.messages import RoundSpec

PROFILING = 0
"""The round in which boards profile: there is no version yet."""


def profiling_spec(config: RunConfig) -> RoundSpec:
    """The specification of profiling. Every profile carries sketches."""
    seed = derive_seed(config.seed, "profile")
    return RoundSpec(round=PROFILING, version=0, seed=seed, sketch=True)


def round_spec(config: RunConfig, round_id: int, version: int) -> RoundSpec:
    """The specification of a round on `version`.

    It asks for sketches in every `sketch_every`th round, where the rule makes bases of them, and never in the last
    round, which needs no basis.
    """
    traits = RULES[config.merge.rule].TRAITS
    makes_basis = traits.sketches and round_id < config.rounds.total
    return RoundSpec(
        round=round_id,
        version=version,
        seed=derive_seed(config.seed, "round", round_id),
        sketch=makes_basis and round_id % config.merge.sketch_every == 0,
        trains=traits.trains(version),
    )
