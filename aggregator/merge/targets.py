"""Rules whose boards say what the adapter should be, not what to add to it: the mean of what they say is a goal, and
the server takes its step towards that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aggregator.merge.low_rank_sum import Addends, Product
from aggregator.merge.lowrank import truncate_sum
from aggregator.merge.state import F64, WeightState
from aggregator.merge.step import MergeSettings, stepped


def reached(weight: WeightState, goal: Addends, settings: MergeSettings) -> WeightState:
    """The weight whose adapter went for this goal: the whole way, to its best approximation of server_rank, or by
    another step as the settings say. No addend: nobody had a goal for this weight."""
    if not goal or not is_plain(settings):
        return stepped(weight, _way(weight, goal), settings)
    frozen_b, frozen_a = truncate_sum(goal, settings.server_rank)
    return replace(weight, frozen_b=frozen_b, frozen_a=frozen_a)


def reached_pair(weight: WeightState, goal: tuple[F64, F64] | None, settings: MergeSettings) -> WeightState:
    """The same for rules that keep the very factors: with the plain step b (m, k), a (k, n) become the context as they
    are.

    A pair wider than server_rank, and any other step, gives factors of the same product instead: ordered by singular
    value, A orthonormal.
    """
    if goal is None or not is_plain(settings) or goal[0].shape[1] > settings.server_rank:
        return reached(weight, () if goal is None else (Product(1.0, *goal),), settings)
    b, a = goal
    return replace(weight, frozen_b=b.astype(np.float32), frozen_a=a.astype(np.float32))


def is_plain(settings: MergeSettings) -> bool:
    """Whether the server's step is the mean itself: no optimiser, eta 1."""
    return settings == MergeSettings(server_rank=settings.server_rank, max_rank=settings.max_rank)


def _way(weight: WeightState, goal: Addends) -> Addends:
    """goal − W_g."""
    return (*goal, Product(-1.0, weight.frozen_b, weight.frozen_a)) if goal else ()
