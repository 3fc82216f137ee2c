"""Checks of run.toml that concern several keys: what cannot work together is refused before there is a run."""

from __future__ import annotations

from dataclasses import replace

from msgspec import UnsetType

from aggregator.errors import ConfigError
from aggregator.merge.defences.defended import DEFENCES, NONE, UNWEIGHTED
from aggregator.merge.drift import knows_drift
from aggregator.merge.rules import RULES
from aggregator.settings.config import RunConfig
from braid_common.hub.model_id import parse_hub_id
from braid_common.text_form import LONGEST_PIECE_CHARS
from wire.run import Personal

ASYNCHRONOUS_STALENESS = 10
"""`staleness_limit` of an asynchronous run that names none: such an update still has 0.3 of its weight."""


def consistent(config: RunConfig) -> RunConfig:
    """The config with an absolute model folder and its staleness limit. Raises ConfigError."""
    config = _with_staleness(config)
    _check_rule(config)
    _check_defence(config)
    _check_fairness(config)
    _check_drift(config)
    _check_nested(config)
    _check_numbers(config)
    _check_prefix(config)
    _check_revision(config)
    _check_personal(config)
    _check_keep(config)
    model = config.model
    if model.path.is_absolute():
        return config
    return replace(config, model=replace(model, path=config.source.parent / model.path))


def _check_revision(config: RunConfig) -> None:
    """Raise ConfigError for a revision that is no commit, or of a model that is not from the hub."""
    model = config.model
    hub_id = parse_hub_id(model.id)
    if model.revision and not (hub_id and hub_id.at(model.revision).is_pinned):
        raise ConfigError(
            f"{config.source}: model.revision = {model.revision!r} is no commit of {model.id} on the hub",
            'Write the 40 hex digits of a commit, or "" for a model that is not from the hub.',
        )


def _with_staleness(config: RunConfig) -> RunConfig:
    """The config with the staleness limit of its mode, where it names none. Raises ConfigError where late updates
    cannot count, or an asynchronous run has none."""
    rounds, merge = config.rounds, config.merge
    if rounds.staleness_limit < 0:
        limit = ASYNCHRONOUS_STALENESS if rounds.is_asynchronous else 0
        rounds = replace(rounds, staleness_limit=limit)
    if rounds.is_asynchronous and not rounds.staleness_limit:
        raise ConfigError(
            f"{config.source}: rounds.staleness_limit = 0 with rounds.mode = asynchronous would refuse every update "
            "that is not in time, and no round waits",
            f"Set rounds.staleness_limit to {ASYNCHRONOUS_STALENESS} or so, or rounds.mode to synchronous.",
        )
    if rounds.staleness_limit and not RULES[merge.rule].TRAITS.is_change:
        others = ", ".join(name for name, rule in RULES.items() if rule.TRAITS.is_change)
        raise ConfigError(
            f"{config.source}: merge.rule = {merge.rule} takes updates that say what the adapter should be, and not "
            f"how to change it: late ones cannot count (rounds.mode = {rounds.mode}, rounds.staleness_limit = "
            f"{rounds.staleness_limit})",
            f"Set rounds.mode to synchronous and rounds.staleness_limit to 0, or take one of {others}.",
        )
    return replace(config, rounds=rounds)


def _check_defence(config: RunConfig) -> None:
    """Raise ConfigError where the defence cannot work with the merge rule, or with so few boards."""
    merge, quorum = config.merge, config.rounds.quorum
    if merge.defence == NONE:
        return
    defence, traits = DEFENCES[merge.defence], RULES[merge.rule].TRAITS
    if not defence.fits(traits):
        others = ", ".join(name for name, other in DEFENCES.items() if other.fits(traits))
        raise ConfigError(
            f"{config.source}: merge.defence = {merge.defence} compares what boards changed number by number, and "
            f"merge.rule = {merge.rule} averages factors, or is told what the adapter should be",
            f"With this rule, take one of {others}; or take another rule.",
        )
    if quorum < defence.MIN_BOARDS:
        raise ConfigError(
            f"{config.source}: merge.defence = {merge.defence} cannot tell good boards from bad in a round of "
            f"{quorum} (rounds.quorum)",
            f"Set rounds.quorum to at least {defence.MIN_BOARDS}, or merge.defence to {NONE}.",
        )


def _check_fairness(config: RunConfig) -> None:
    """Raise ConfigError where boards cannot be weighed by their loss, or one could take the whole round by it."""
    merge = config.merge
    if not merge.fairness:
        return
    _require_weights(config, "merge.fairness", f"{merge.fairness:g} weighs boards by their loss")
    if not merge.weight_bound:
        raise ConfigError(
            f"{config.source}: merge.fairness = {merge.fairness:g} believes what boards say of their loss, and with "
            "merge.max_weight = 0 one that lies could count for all",
            "Set merge.max_weight to 3 or so, or merge.fairness to 0.",
        )


def _check_drift(config: RunConfig) -> None:
    """Raise ConfigError where boards cannot be weighed by what they leave out of the model."""
    merge = config.merge
    if not merge.drift:
        return
    if not knows_drift(RULES[merge.rule].TRAITS):
        others = ", ".join(name for name, rule in RULES.items() if knows_drift(rule.TRAITS))
        raise ConfigError(
            f"{config.source}: merge.drift = {merge.drift:g} weighs boards by how much of the model they leave out, "
            f"and under merge.rule = {merge.rule} nothing says what a board leaves out",
            f"Set merge.drift to 0, or take one of {others}.",
        )
    _require_weights(config, "merge.drift", f"{merge.drift:g} weighs boards by how much of the model they leave out")


def _require_weights(config: RunConfig, key: str, meaning: str) -> None:
    """Raise ConfigError where a setting weighs boards and the defence counts all alike."""
    defence = config.merge.defence
    if defence in UNWEIGHTED:
        others = ", ".join(name for name in DEFENCES if name not in UNWEIGHTED)
        raise ConfigError(
            f"{config.source}: {key} = {meaning}, and to merge.defence = {defence} all boards count alike",
            f"Set {key} to 0, or take one of {others}.",
        )


def _check_nested(config: RunConfig) -> None:
    """Raise ConfigError where boards would train other strands than those that wrote the answers they learn from."""
    train = config.train
    if isinstance(train.nested, UnsetType) or isinstance(train.reward, UnsetType):
        return
    raise ConfigError(
        f"{config.source}: train.nested = {train.nested} trains parts of the strands, and train.objective = reward "
        "compares what they make likely with what all of them have written",
        "Set train.nested to 0, or train.objective to likelihood.",
    )


def _check_rule(config: RunConfig) -> None:
    """Raise ConfigError where the merge rule cannot work with the ranks."""
    merge = config.merge
    traits = RULES[merge.rule].TRAITS
    if traits.needs_equal_ranks and not config.train.rank:
        raise ConfigError(
            f"{config.source}: merge.rule = {merge.rule} averages factors of equal rank, and train.rank = 0 lets "
            "every board choose its own",
            "Set train.rank to a rank that the smallest board can train, or take another rule.",
        )


def _check_personal(config: RunConfig) -> None:
    """Raise ConfigError where the split between shared and local weights is none, or the merge rule has no place for
    it."""
    personal = config.train.personal
    if not isinstance(personal, Personal) or personal.method != "fedrep":
        return
    if not personal.local_blocks:
        raise ConfigError(
            f"{config.source}: personal.method = fedrep keeps the last blocks of the decoder on each board, and "
            "personal.local_blocks = 0 keeps none",
            "Set personal.local_blocks to 1 or more, or take another method.",
        )
    if config.train.rank:
        raise ConfigError(
            f"{config.source}: personal.method = fedrep trains no global strands in the last blocks, and train.rank = "
            f"{config.train.rank} asks for so many of every weight",
            "Set train.rank to 0 with a merge rule that takes unequal ranks, or take another method.",
        )


def _check_keep(config: RunConfig) -> None:
    """Raise ConfigError where boards do not begin at the received model, which they were to be held near."""
    keep = config.train.keep
    if isinstance(keep, UnsetType) or not RULES[config.merge.rule].TRAITS.own_basis:
        return
    others = ", ".join(name for name, rule in RULES.items() if not rule.TRAITS.own_basis)
    raise ConfigError(
        f"{config.source}: train.keep = {keep.weight:g} holds boards near the strands that they were sent, and under "
        f"merge.rule = {config.merge.rule} each board draws its own",
        f"Set train.keep to 0, or take one of {others}.",
    )


def _check_prefix(config: RunConfig) -> None:
    """Raise ConfigError where the prefix leaves no room for text, however well it is tokenised. Boards, which have the
    tokenizer, know it exactly."""
    form = config.train.text_form
    words = form.prefix.split()
    least = sum(-(-len(word) // LONGEST_PIECE_CHARS) for word in words)
    if least > form.max_source_tokens - 2:  # eos, and a token of text
        raise ConfigError(
            f"{config.source}: train.prefix has {len(words)} words, which take {least} tokens or more: they leave no "
            f"room for text in sources of {form.max_source_tokens} tokens",
            "Shorten train.prefix, or raise train.max_source_tokens.",
        )


def _check_numbers(config: RunConfig) -> None:
    """Raise ConfigError where one number must not be larger than another, and is."""
    rounds, merge = config.rounds, config.merge
    if config.train.rank > merge.max_rank:
        raise ConfigError(
            f"{config.source}: train.rank = {config.train.rank} is larger than merge.max_rank = {merge.max_rank}",
            "Allowed is at most merge.max_rank.",
        )
    if config.train.micro_batch > config.train.batch:
        raise ConfigError(
            f"{config.source}: train.micro_batch = {config.train.micro_batch} is larger than train.batch = "
            f"{config.train.batch}",
            "Allowed is at most train.batch.",
        )
    if rounds.quorum > rounds.min_devices:
        raise ConfigError(
            f"{config.source}: rounds.quorum = {rounds.quorum} is larger than rounds.min_devices = "
            f"{rounds.min_devices}: training would begin with too few boards for any round to close",
            "Lower rounds.quorum or raise rounds.min_devices.",
        )
