"""The shared bases and the values of strands, made of gradient sketches, for all rules.

A, σ  ← right singular vectors and values of Σ p_k · Y_k           a weight that no board sketched keeps what it has
value of strand i ← σ_i²,  or  s · σ_i² / Σ_j σ_j²  with  s = Σ p_k · share_k  of the weight in the profiles' scores
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.low_rank.approximation import completed, significant, with_signs
from aggregator.merge.state import F64, AdapterState, WeightState
from aggregator.merge.step import MergeSettings, for_each_weight
from aggregator.merge.sums import Gathered
from braid_common.seeds import derive_seed


def first_basis(state: AdapterState, total: Gathered, *, max_rank: int, seed: int) -> AdapterState:
    """Version 1 from the profiles: bases and values by their sketches, and the weights' scores where they have any.

    A weight that no board reached gets random rows of value 0, and score 0: as in a round, the mean is over all boards.
    """
    total.check_names(state)
    weights = {
        name: _with_basis(
            _scored(weight, total, name),
            total.sketches.get(name, np.zeros((0, weight.shape[1]))),
            total.weight,
            max_rank,
            derive_seed(seed, "basis", name),
        )
        for name, weight in state.weights.items()
    }
    version = state.version + 1
    return AdapterState(version=version, weights=weights, ranked_at=version if total.sketches else state.ranked_at)


def random_basis(state: AdapterState, *, max_rank: int, seed: int) -> AdapterState:
    """Version 1 without any profile: random orthonormal rows, every value 0, so no weight is preferred.

    A server waits for a profile; this is a start for tests and benchmarks.
    """
    return first_basis(state, Gathered(weight=1.0, n_updates=0), max_rank=max_rank, seed=seed)


def first_drawn_basis(state: AdapterState, total: Gathered, *, max_rank: int, seed: int) -> AdapterState:
    """Version 1 whose rows are random and orthonormal, drawn from `seed`; values and scores are the profiles' still."""
    begun = first_basis(state, total, max_rank=max_rank, seed=seed)
    weights = {name: _drawn(weight, derive_seed(seed, "drawn", name)) for name, weight in begun.weights.items()}
    return replace(begun, weights=weights)


Refresh = Callable[[WeightState, str, Gathered, int, int], WeightState]
"""`with_sketch` or `with_values`."""


def with_sketch(weight: WeightState, name: str, total: Gathered, max_rank: int, version: int) -> WeightState:
    """The weight with the basis and values that a round's sketches give; as it was where nobody sketched it."""
    seed = derive_seed(version, "basis", name)
    return _with_basis(weight, total.sketches.get(name), total.weight, max_rank, seed)


def with_values(weight: WeightState, name: str, total: Gathered, max_rank: int, version: int) -> WeightState:
    """The weight with new values alone, for a rule whose basis does not come from sketches."""
    return replace(with_sketch(weight, name, total, max_rank, version), basis=weight.basis)


def next_version(
    state: AdapterState,
    total: Gathered,
    settings: MergeSettings,
    step: Callable[[str, WeightState], WeightState],
    refresh: Refresh = with_sketch,
) -> AdapterState:
    """The version after `state`: every weight stepped, then given what the round's sketches say of it."""
    version = state.version + 1

    def make(name: str, weight: WeightState) -> WeightState:
        return refresh(step(name, weight), name, total, settings.max_rank, version)

    ranked_at = version if total.sketches else state.ranked_at
    return AdapterState(version=version, weights=for_each_weight(state, make), ranked_at=ranked_at)


def _drawn(weight: WeightState, seed: int) -> WeightState:
    count, columns = weight.basis.shape
    return replace(weight, basis=completed(np.zeros((0, columns)), count, seed).astype(np.float32))


def _scored(weight: WeightState, total: Gathered, name: str) -> WeightState:
    """The weight with its mean share of the profiles' scores; unchanged where the run has none."""
    return replace(weight, score=total.shares.get(name, 0.0) / total.weight) if total.shares else weight


def _with_basis(weight: WeightState, sketch_sum: F64 | None, divisor: float, max_rank: int, seed: int) -> WeightState:
    """The weight with the basis and values of Σ w_k·Y_k (R, n) over `divisor`; as it was where no sketch came."""
    if sketch_sum is None:
        return weight
    if sketch_sum.shape[1] != weight.shape[1]:
        raise ValueError(f"sketch of shape {sketch_sum.shape} does not fit a {weight.shape} weight")
    count = min(max_rank, *weight.shape)
    # Boards of a round share Ω, so this is the sketch Ω·G of their mean gradient G, and has its leading directions.
    rows, values = _leading(sketch_sum / divisor, count)
    basis = completed(rows, count, seed)  # random rows where the sketch tells too few; they are worth nothing
    squares = np.zeros(count)
    squares[: len(values)] = values
    return replace(weight, basis=basis.astype(np.float32), values=_worth(squares, weight.score))


def _worth(squares: F64, score: float | None) -> F64:
    """The values of strands of these σ² (R,). A score whose sketch is zero is shared equally: no row is known to be
    better than another."""
    if score is None:
        return squares
    total = float(squares.sum())
    shares = squares / total if total > 0 else np.full(len(squares), 1 / len(squares))
    return score * shares


def _leading(sketch: NDArray[np.float64], count: int) -> tuple[F64, F64]:
    """The right singular vectors of a sketch, at most `count`, and their σ²; none that is zero to rounding."""
    _, s, vt = np.linalg.svd(sketch, full_matrices=False)
    kept = min(count, significant(s))
    return with_signs(vt[:kept])[0], s[:kept] ** 2
