"""Checks of run.toml that concern several keys: what cannot work together is refused before there is a run."""

from __future__ import annotations

from dataclasses import replace

from aggregator.errors import ConfigError
from aggregator.merge.defences.defended import DEFENCES, NONE
from aggregator.merge.rules import RULES
from aggregator.merge.targets import is_plain
from aggregator.settings.config import RunConfig, merge_settings

ASYNCHRONOUS_STALENESS = 10
"""`staleness_limit` of an asynchronous run that names none: such an update still has 0.3 of its weight."""


def consistent(config: RunConfig) -> RunConfig:
    """The config with an absolute model folder and its staleness limit. Raises ConfigError."""
    config = _with_staleness(config)
    _check_rule(config)
    _check_defence(config)
    _check_numbers(config)
    folder = config.model_path
    return config if folder.is_absolute() else replace(config, model_path=config.source.parent / folder)


def _with_staleness(config: RunConfig) -> RunConfig:
    """The config with the staleness limit of its mode, where it names none. Raises ConfigError where late updates
    cannot count, or an asynchronous run has none."""
    if config.staleness_limit < 0:
        config = replace(config, staleness_limit=ASYNCHRONOUS_STALENESS if config.is_asynchronous else 0)
    if config.is_asynchronous and not config.staleness_limit:
        raise ConfigError(
            f"{config.source}: rounds.staleness_limit = 0 with rounds.mode = asynchronous would refuse every update "
            "that is not in time, and no round waits",
            f"Set rounds.staleness_limit to {ASYNCHRONOUS_STALENESS} or so, or rounds.mode to synchronous.",
        )
    if config.staleness_limit and not RULES[config.rule].TRAITS.is_change:
        others = ", ".join(name for name, rule in RULES.items() if rule.TRAITS.is_change)
        raise ConfigError(
            f"{config.source}: merge.rule = {config.rule} takes updates that say what the adapter should be, and not "
            f"how to change it: late ones cannot count (rounds.mode = {config.mode}, rounds.staleness_limit = "
            f"{config.staleness_limit})",
            f"Set rounds.mode to synchronous and rounds.staleness_limit to 0, or take one of {others}.",
        )
    return config


def _check_defence(config: RunConfig) -> None:
    """Raise ConfigError where the defence cannot work with the merge rule, or with so few boards."""
    if config.defence == NONE:
        return
    defence, facts = DEFENCES[config.defence], RULES[config.rule].TRAITS
    if not defence.fits(facts):
        others = ", ".join(name for name, other in DEFENCES.items() if other.fits(facts))
        raise ConfigError(
            f"{config.source}: merge.defence = {config.defence} compares what boards changed number by number, and "
            f"merge.rule = {config.rule} averages factors, or is told what the adapter should be",
            f"With this rule, take one of {others}; or take another rule.",
        )
    if config.quorum < defence.MIN_BOARDS:
        raise ConfigError(
            f"{config.source}: merge.defence = {config.defence} cannot tell good boards from bad in a round of "
            f"{config.quorum} (rounds.quorum)",
            f"Set rounds.quorum to at least {defence.MIN_BOARDS}, or merge.defence to {NONE}.",
        )


def _check_rule(config: RunConfig) -> None:
    """Raise ConfigError where the merge rule cannot work with the ranks or the server's step."""
    facts = RULES[config.rule].TRAITS
    if facts.needs_equal_ranks and not config.train.rank:
        raise ConfigError(
            f"{config.source}: merge.rule = {config.rule} averages factors of equal rank, and train.rank = 0 lets "
            "every board choose its own",
            "Set train.rank to a rank that the smallest board can train, or take another rule.",
        )
    if not facts.server_step and not is_plain(merge_settings(config)):
        raise ConfigError(
            f"{config.source}: merge.rule = {config.rule} knows no server step, and [merge] sets one",
            "Set merge.eta to 0 and merge.optimiser to none, or merge.rule to fresh: the same, with a server step.",
        )


def _check_numbers(config: RunConfig) -> None:
    """Raise ConfigError where one number must not be larger than another, and is."""
    if config.train.rank > config.max_rank:
        raise ConfigError(
            f"{config.source}: train.rank = {config.train.rank} is larger than merge.max_rank = {config.max_rank}",
            "Allowed is at most merge.max_rank.",
        )
    if config.train.micro_batch > config.train.batch:
        raise ConfigError(
            f"{config.source}: train.micro_batch = {config.train.micro_batch} is larger than train.batch = "
            f"{config.train.batch}",
            "Allowed is at most train.batch.",
        )
    if config.quorum > config.min_devices:
        raise ConfigError(
            f"{config.source}: rounds.quorum = {config.quorum} is larger than rounds.min_devices = "
            f"{config.min_devices}: training would begin with too few boards for any round to close",
            "Lower rounds.quorum or raise rounds.min_devices.",
        )
