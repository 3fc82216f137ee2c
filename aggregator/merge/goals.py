"""Rules whose boards say what the adapter should be, not what to add to it: the mean of what they say is a goal, and
the server takes its step towards that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aggregator.merge.lowrank import truncate
from aggregator.merge.state import F64, WeightState
from aggregator.merge.step import MergeSettings, stepped


def reached(weight: WeightState, goal: tuple[F64, F64] | None, settings: MergeSettings) -> WeightState:
    """The weight whose adapter went for b (m, k) · a (k, n): the whole way, to its best approximation of server_rank,
    or by another step as the settings say. None: nobody had a goal for this weight."""
    if goal is None or not is_plain(settings):
        return stepped(weight, _way(weight, goal), settings)
    context_b, context_a = truncate(*goal, settings.server_rank)
    return replace(weight, context_b=context_b, context_a=context_a)


def reached_pair(weight: WeightState, goal: tuple[F64, F64] | None, settings: MergeSettings) -> WeightState:
    """The same for rules that keep the very factors: with the plain step b and a become the context as they are.

    A pair wider than server_rank, and any other step, gives factors of the same product instead: ordered by singular
    value, A orthonormal.
    """
    if goal is None or not is_plain(settings) or goal[0].shape[1] > settings.server_rank:
        return reached(weight, goal, settings)
    b, a = goal
    return replace(weight, context_b=b.astype(np.float32), context_a=a.astype(np.float32))


def is_plain(settings: MergeSettings) -> bool:
    """Whether the server's step is the mean itself: no optimiser, eta 1."""
    return settings == MergeSettings(server_rank=settings.server_rank, max_rank=settings.max_rank)


def _way(weight: WeightState, goal: tuple[F64, F64] | None) -> tuple[F64, F64] | None:
    """goal − W_g as factors."""
    if goal is None:
        return None
    b, a = goal
    return np.concatenate([b, -weight.context_b], axis=1), np.concatenate([a, weight.context_a])
