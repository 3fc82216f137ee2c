"""Steps towards a target, for rules whose boards say what the adapter should be and not what to add to it: the mean of
what they say is the target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aggregator.merge.low_rank.approximation import truncate_sum
from aggregator.merge.low_rank.matrix_sum import LowRankSum, Product
from aggregator.merge.state import F64, WeightState
from aggregator.merge.step import MergeSettings, stepped


def stepped_to(weight: WeightState, target: LowRankSum, settings: MergeSettings) -> WeightState:
    """The weight after a step towards a target: the whole way, to its best approximation of server_rank, or by another
    step as the settings say. A target without terms: nobody trained this weight."""
    if not target or not is_plain(settings):
        return stepped(weight, _difference(weight, target), settings)
    frozen_b, frozen_a = truncate_sum(target, settings.server_rank)
    return replace(weight, frozen_b=frozen_b, frozen_a=frozen_a)


def stepped_to_pair(weight: WeightState, target: tuple[F64, F64] | None, settings: MergeSettings) -> WeightState:
    """The weight after a step towards a pair b (m, k), a (k, n), for rules that keep the very factors: with the plain
    step these become the global adapter's as they are.

    A pair wider than server_rank, and any other step, gives factors of the same product instead: ordered by singular
    value, A orthonormal.
    """
    if target is None or not is_plain(settings) or target[0].shape[1] > settings.server_rank:
        return stepped_to(weight, () if target is None else (Product(1.0, *target),), settings)
    b, a = target
    return replace(weight, frozen_b=b.astype(np.float32), frozen_a=a.astype(np.float32))


def is_plain(settings: MergeSettings) -> bool:
    """Whether the server's step is the mean itself: no optimiser, eta 1."""
    return settings == MergeSettings(server_rank=settings.server_rank, max_rank=settings.max_rank)


def _difference(weight: WeightState, target: LowRankSum) -> LowRankSum:
    """target − W_g."""
    return (*target, Product(-1.0, weight.frozen_b, weight.frozen_a)) if target else ()
