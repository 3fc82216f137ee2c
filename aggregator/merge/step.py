"""The server's step along a round's mean change of the global adapter, in the space of W itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from threading import Lock

import numpy as np
from threadpoolctl import ThreadpoolController

from aggregator.merge.low_rank.approximation import truncate_dense, truncate_sum
from aggregator.merge.low_rank.matrix_sum import LowRankSum, Product, multiplied, scaled
from aggregator.merge.optimisers import (
    NONE,
    Optimiser,
    dense_step,
    first_moment,
    kept,
    low_rank_step,
    second_moment,
)
from aggregator.merge.state import AdapterState, WeightState


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """`server_rank`: rank of the global adapter, at most; `max_rank`: rows of a basis; `eta`: the server's step, of
    what `optimiser` makes of the mean change."""

    server_rank: int
    max_rank: int
    eta: float = 1.0
    optimiser: Optimiser = NONE


def stepped(weight: WeightState, change: LowRankSum, settings: MergeSettings) -> WeightState:
    """The weight after one server step along `change`, the round's mean ΔW.

    A change that is absent or zero leaves a weight bit for bit, unless an optimiser remembers others. Raises ValueError
    where shapes do not fit, LinAlgError where a value is not finite.
    """
    if unfit := [one.shape for one in change if one.shape != weight.shape]:
        raise ValueError(f"changes of shape {unfit[0]} do not fit a {weight.shape} weight")
    if all(one.is_zero for one in change):
        change = ()
    optimiser = settings.optimiser
    first = first_moment(weight.moments, change, optimiser)
    if not first:
        return weight
    if optimiser.squares:
        return _stepped_dense(weight, first, change, settings)
    step = scaled(low_rank_step(first, change, optimiser), settings.eta)
    before = Product(1.0, weight.frozen_b, weight.frozen_a)
    frozen_b, frozen_a = truncate_sum((before, *step), settings.server_rank)
    moments = kept(first, None, settings.server_rank) if optimiser.beta else None
    return replace(weight, frozen_b=frozen_b, frozen_a=frozen_a, moments=moments)


def _stepped_dense(weight: WeightState, first: LowRankSum, change: LowRankSum, settings: MergeSettings) -> WeightState:
    """The weight after a step of an optimiser with squares, whose steps have no low rank."""
    optimiser = settings.optimiser
    dense_change = multiplied(change, np.float64) if change else np.zeros(weight.shape)
    second = second_moment(weight.moments, dense_change, optimiser)
    before = weight.frozen_b.astype(np.float64) @ weight.frozen_a.astype(np.float64)
    after = (1 - settings.eta * optimiser.decay) * before + settings.eta * dense_step(first, second, optimiser)
    frozen_b, frozen_a = truncate_dense(after, settings.server_rank)
    moments = kept(first, second, settings.server_rank)
    return replace(weight, frozen_b=frozen_b, frozen_a=frozen_a, moments=moments)


# --- every weight -----------------------------------------------------------------------------------------------------

_LIMITING = Lock()
"""How many threads BLAS takes is a setting of the whole process."""

_FREED_BYTES = 31 << 20
"""A block of the largest size, but for one, up to which glibc learns from what is freed (32 MiB)."""


@cache
def _blas() -> ThreadpoolController:
    """The libraries that multiply for numpy. Looked for once: that reads all that the process has mapped."""
    return ThreadpoolController().select(user_api="blas")


def for_each_weight(state: AdapterState, make: Callable[[str, WeightState], WeightState]) -> Mapping[str, WeightState]:
    """`make` of every weight, in the state's order, on as many threads as BLAS would take for itself.

    BLAS gets one each: its own threads are no help with matrices of this size, and where others want the processors
    too they wait for each other (decision 0027). Each weight's arithmetic is then that of one thread, so that results
    have the same bits however many there are.
    """
    np.empty(_FREED_BYTES, np.uint8)  # never touched. Having freed it, glibc keeps what a weight frees for the next one
    with _LIMITING:
        blas = _blas()
        n_threads = max((library["num_threads"] for library in blas.info()), default=1)
        alone = partial(blas.limit, limits=1)  # once more in each thread: built on OpenMP, BLAS asks its caller's limit
        with alone(), ThreadPoolExecutor(n_threads, initializer=alone) as pool:
            weights = pool.map(make, state.weights, state.weights.values())
            return dict(zip(state.weights, weights, strict=True))
