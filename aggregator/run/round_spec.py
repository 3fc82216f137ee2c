"""The specification of each round, made of run.toml. It holds for all updates of the round, also for late ones."""

from __future__ import annotations

from aggregator.merge.rules import RULES
from aggregator.merge.traits import Traits
from aggregator.settings.config import RunConfig
from braid_common.seeds import derive_seed
from wire.limits import VERSION_DIGEST_CHARS
from wire.messages import RoundSpec
from wire.routes import PROFILING

__all__ = ["PROFILING", "profiling_spec", "round_spec", "sketch_is_due", "version_digest"]


def profiling_spec(config: RunConfig) -> RoundSpec:
    """The specification of profiling. Every profile carries sketches."""
    seed = derive_seed(config.seed, "profile")
    return RoundSpec(round=PROFILING, version=0, seed=seed, sketch=True)


def round_spec(config: RunConfig, round_id: int, version: int, digest: str) -> RoundSpec:
    """The specification of a round on `version`, whose file has this digest.

    It asks for sketches in every `sketch_every`th round, where the rule makes bases of them, and never in the last
    round, which needs no basis.
    """
    traits = RULES[config.merge.rule].TRAITS
    return RoundSpec(
        round=round_id,
        version=version,
        version_digest=version_digest(digest),
        seed=derive_seed(config.seed, "round", round_id),
        sketch=sketch_is_due(traits, round_id, rounds=config.rounds.total, every=config.merge.sketch_every),
        trains=traits.trains(version),
    )


def version_digest(digest: str) -> str:
    """The part of a version's digest that boards are told, given that of its file; "" of version 0, which has none."""
    return digest[:VERSION_DIGEST_CHARS]


def sketch_is_due(traits: Traits, round_id: int, *, rounds: int, every: int) -> bool:
    """Whether a round of a run of `rounds` asks for gradient sketches, `every` so many of them."""
    return traits.sketches and round_id < rounds and round_id % every == 0
