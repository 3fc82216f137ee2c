"""Whether a run's largest files fit into one message: asked of its shapes when it is made, not in round 40."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.config import RunConfig
from aggregator.errors import ConfigError
from aggregator.units import show_size
from wire.checks import basis_rank
from wire.limits import MAX_MESSAGE_BYTES
from wire.messages import Dtype, Weight, tensor_bytes

_HEAD_BYTES = 64 * 1024
"""A message's fields beside its tensors."""

_WEIGHT_BYTES = 1024
"""A weight's name, keys, shapes and dtypes in a message: a name has at most 800 bytes of UTF-8."""

_VALUE_BYTES = 9
"""A strand's σ² in msgpack."""


def state_bytes(weights: Sequence[Weight], server_rank: int, max_rank: int) -> int:
    """At most what the server's own adapter takes: contexts of full rank and bases in fp32, and their values.

    What boards download is a part of it.
    """

    def of(weight: Weight) -> int:
        context = (weight.rows + weight.columns) * basis_rank(weight, server_rank)
        rank = basis_rank(weight, max_rank)
        return 4 * (context + rank * weight.columns) + _VALUE_BYTES * rank + _WEIGHT_BYTES

    return _HEAD_BYTES + sum(map(of, weights))


def update_bytes(weights: Sequence[Weight], max_rank: int, dtype: Dtype) -> int:
    """At most what an update takes: every B and every sketch at full rank in `dtype`."""

    def of(weight: Weight) -> int:
        rank = basis_rank(weight, max_rank)
        return sum(sum(tensor_bytes(dtype, rank * side)) for side in (weight.rows, weight.columns)) + _WEIGHT_BYTES

    return _HEAD_BYTES + sum(map(of, weights))


def check_sizes(config: RunConfig, weights: Sequence[Weight]) -> None:
    """Raise ConfigError, which names the settings to lower, unless all of a run's messages fit into their limit."""
    state = state_bytes(weights, config.server_rank, config.max_rank)
    update = update_bytes(weights, config.max_rank, config.train.upload)
    for what, size, hint in (
        ("the adapter", state, "Lower merge.server_rank or merge.max_rank"),
        ("a board's update", update, "Lower merge.max_rank, take train.upload = bf16 or less"),
    ):
        if size > MAX_MESSAGE_BYTES:
            raise ConfigError(
                f"{config.source}: with server_rank {config.server_rank} and max_rank {config.max_rank} on "
                f"{len(weights)} weights {what} could take {show_size(size)}, at most {show_size(MAX_MESSAGE_BYTES)} "
                "can be sent.",
                f"{hint}, or take fewer weights (train.targets, train.scope).",
            )
