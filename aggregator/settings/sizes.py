"""Whether a run's largest files fit into one message, and its sums into memory: asked of its shapes when it is made or
served, not in round 40."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.errors import ConfigError
from aggregator.merge.in_groups import grouped
from aggregator.merge.optimisers import NONE, OPTIMISERS, Optimiser
from aggregator.merge.rules import RULES
from aggregator.merge.traits import Traits
from aggregator.settings.config import RunConfig
from braid_common.units import show_size
from wire.checks import basis_rank
from wire.fields import Dtype
from wire.limits import MAX_MESSAGE_BYTES, MAX_TENSOR_VALUES
from wire.messages import tensor_bytes
from wire.run import Weight

_HEAD_BYTES = 64 * 1024
"""A message's fields beside its tensors."""

_WEIGHT_BYTES = 1024
"""A weight's name, keys, shapes and dtypes in a message: a name has at most 800 bytes of UTF-8."""

SUMS_SHARE = 0.5
"""Part of a machine's memory that a round's sums may take unmentioned; the rest is for messages, merging and others."""

MUCH_LESS = 8
"""A rule whose sums take this many times less is worth naming instead."""

_VALUE_BYTES = 9
"""A strand's σ² in msgpack."""


def state_bytes(
    weights: Sequence[Weight], server_rank: int, max_rank: int, optimiser: Optimiser = NONE, *, begun: bool = False
) -> int:
    """The most that the server's own adapter takes: factors of full rank and bases in fp32, their values, and what the
    optimiser remembers: a first moment of the adapter's rank, and where it has squares one of each entry of a weight.

    What boards download is no more: a part of it, or where they begin at strands (`begun`) as many as they train, which
    may be more than the adapter has.
    """
    n_factors = 2 if optimiser.beta else 1

    def of(weight: Weight) -> int:
        frozen = (weight.rows + weight.columns) * basis_rank(weight, server_rank)
        squares = weight.rows * weight.columns if optimiser.squares else 0
        rank = basis_rank(weight, max_rank)
        strands = (weight.rows + weight.columns) * rank * begun
        values = max(n_factors * frozen + squares + rank * weight.columns, strands)
        return 4 * values + _VALUE_BYTES * rank + _WEIGHT_BYTES

    return _HEAD_BYTES + sum(map(of, weights))


def update_bytes(weights: Sequence[Weight], max_rank: int, dtype: Dtype, trains_a: bool = False) -> int:
    """The most that an update takes: B and sketches at full rank in `dtype`, and A where it is trained."""

    def of(weight: Weight) -> int:
        rank = basis_rank(weight, max_rank)
        sides = (weight.rows, weight.columns, *((weight.columns,) if trains_a else ()))
        return sum(sum(tensor_bytes(dtype, rank * side)) for side in sides) + _WEIGHT_BYTES

    return _HEAD_BYTES + sum(map(of, weights))


def sums_bytes(traits: Traits, weights: Sequence[Weight], max_rank: int) -> int:
    """The most that the sums of these weights take, however many boards have trained all of them."""

    def of(weight: Weight) -> int:
        m, n, rank = weight.rows, weight.columns, basis_rank(weight, max_rank)
        if traits.space == "basis":
            return 8 * rank * (m + n * traits.sketches)
        factors = 8 * rank * (m + n + 1)
        if traits.space == "factors":
            return factors
        return 9 * m * n // 2 * (rank if traits.sums_by_rank else 1) + 2 * factors

    return sum(map(of, weights))


def merge_bytes(traits: Traits, weights: Sequence[Weight], max_rank: int) -> int:
    """The most that sums take at once while a round is merged, which is done a group of weights after the other."""
    by_name = {weight.name: weight for weight in weights}
    groups = grouped({weight.name: (weight.rows, weight.columns) for weight in weights})
    return max(sums_bytes(traits, [by_name[name] for name in names], max_rank) for names in groups)


def memory_warning(config: RunConfig, weights: Sequence[Weight], installed_bytes: int) -> str | None:
    """The warning that merging may outgrow this machine, with rules that do with less; None where all is well.

    No refusal: a fleet of few boards, or one that trains some of the weights, never needs as much.
    """
    merge = config.merge
    by_rule = {name: merge_bytes(rule.TRAITS, weights, merge.max_rank) for name, rule in RULES.items()}
    needed = by_rule[merge.rule]
    if needed <= installed_bytes * SUMS_SHARE:
        return None
    smaller = next((f"merge.rule = {name}, " for name, size in by_rule.items() if size <= needed / MUCH_LESS), "")
    return (
        f"WARNING: the sums of a large fleet's round could take {show_size(needed)} with merge.rule = {merge.rule}, "
        f"and this machine has {show_size(installed_bytes)}: take {smaller}fewer weights (train.targets, train.scope) "
        "or a larger machine"
    )


def check_sizes(config: RunConfig, weights: Sequence[Weight]) -> None:
    """Raise ConfigError, which names the settings to lower, unless all of a run's messages fit into their limit."""
    merge = config.merge
    optimiser = OPTIMISERS[merge.optimiser]
    begun = RULES[merge.rule].TRAITS.has_start
    state = state_bytes(weights, merge.server_rank, merge.max_rank, optimiser, begun=begun)
    update = update_bytes(weights, merge.max_rank, config.train.upload, config.train.trains_a)
    _check_squares(config, optimiser, weights, state)
    for what, size, hint in (
        ("the adapter", state, "Lower merge.server_rank or merge.max_rank"),
        ("a board's update", update, "Lower merge.max_rank, take train.upload = bf16 or less"),
    ):
        if size > MAX_MESSAGE_BYTES:
            raise ConfigError(
                f"{config.source}: with server_rank {merge.server_rank} and max_rank {merge.max_rank} on "
                f"{len(weights)} weights {what} could take {show_size(size)}, at most {show_size(MAX_MESSAGE_BYTES)} "
                "can be sent.",
                f"{hint}, or take fewer weights (train.targets, train.scope).",
            )


def _check_squares(config: RunConfig, optimiser: Optimiser, weights: Sequence[Weight], state: int) -> None:
    """Raise ConfigError where it is the optimiser's squares that make the adapter too large to be stored."""
    merge = config.merge
    without = state_bytes(weights, merge.server_rank, merge.max_rank)
    largest = max((weight.rows * weight.columns for weight in weights), default=0)
    fits = state <= MAX_MESSAGE_BYTES and largest <= MAX_TENSOR_VALUES
    if optimiser.squares and not fits and without <= MAX_MESSAGE_BYTES:
        others = ", ".join(name for name, one in OPTIMISERS.items() if not one.squares)
        raise ConfigError(
            f"{config.source}: merge.optimiser = {merge.optimiser} keeps a number for every entry of {len(weights)} "
            f"weights: the adapter could take {show_size(state)}, at most {show_size(MAX_MESSAGE_BYTES)} and "
            f"{MAX_TENSOR_VALUES} entries a weight can be stored.",
            f"Take one of {others}, or fewer weights (train.targets, train.scope).",
        )
