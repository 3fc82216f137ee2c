"""The default merge rule: boards of unequal rank train B on leading rows of one shared basis, the server sums.

    W_g  ← truncate_{R_s}( W_g + η · (Σ p_k · pad(B_k)) · A_t )      p_k = n_k / Σ n over the cohort's accepted updates
    A_{t+1}, σ  ← right singular vectors and values of Σ p_k · Y_k     kept where no board sketched the weight
    value of strand i ← σ_i²,  or  s · σ_i² / Σ_j σ_j²  with  s = Σ p_k · share_k  of the weight in the profiles' scores

Sources: frozen A with only B sent is FFA-LoRA (arXiv 2403.12313), an orthonormal A refactored by the server FedSVD
(arXiv 2505.12805), A from a gradient's singular vectors LoRA-GA (arXiv 2407.05000). Sharing one *ordered* basis that
boards cut at their own rank is ours; docs/merging.md has the reasons and the invariants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.lowrank import completed, significant, truncate, with_signs
from aggregator.merge.state import F64, AdapterState, WeightState
from aggregator.merge.sums import RoundSum, fold
from wire.errors import WireError
from wire.messages import AdapterPart, Dtype
from wire.seeds import derive_seed
from wire.tensors import pack

__all__ = ["cut", "first_basis", "fold", "merge", "random_basis"]


# --- a round -------------------------------------------------------------------------------------------------------


def merge(state: AdapterState, total: RoundSum, *, server_rank: int, max_rank: int, eta: float = 1.0) -> AdapterState:
    """The next version: the mean step added to every weight's context, and a new basis where sketches came.

    `eta` is the server's step size. A weight whose summed B is zero or absent keeps its context bit for bit. The mean
    is over all boards of the sum: one that did not train a weight counts as zero there. Raises ValueError where the sum
    does not fit the state (screened updates always do).
    """
    _check_names(state, total)
    version = state.version + 1
    weights = {
        name: _with_basis(
            _stepped(weight, total.b.get(name), eta / total.n_examples, server_rank),
            total.sketches.get(name),
            total.n_examples,
            max_rank,
            derive_seed(version, "basis", name),
        )
        for name, weight in state.weights.items()
    }
    return AdapterState(version=version, weights=weights, ranked_at=version if total.sketches else state.ranked_at)


def _check_names(state: AdapterState, total: RoundSum) -> None:
    if total.n_examples < 1:
        raise ValueError("a round without examples cannot be merged")
    unknown = sorted((set(total.b) | set(total.sketches) | set(total.shares)) - set(state.weights))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no weight of this run ({len(unknown)} such)")


def _stepped(weight: WeightState, b_sum: F64 | None, scale: float, server_rank: int) -> WeightState:
    """The weight with scale·b_sum·(leading basis rows) added to its context."""
    if b_sum is None or not b_sum.any():
        return weight
    rank = b_sum.shape[1]
    if rank > len(weight.basis) or len(b_sum) != weight.shape[0]:
        raise ValueError(f"B of shape {b_sum.shape} does not fit basis {weight.basis.shape} of a {weight.shape} weight")
    stacked_b = np.concatenate([weight.context_b, scale * b_sum], axis=1)
    stacked_a = np.concatenate([weight.context_a, weight.basis[:rank]])
    context_b, context_a = truncate(stacked_b, stacked_a, server_rank)
    return replace(weight, context_b=context_b, context_a=context_a)


# --- bases ---------------------------------------------------------------------------------------------------------


def first_basis(state: AdapterState, total: RoundSum, *, max_rank: int, seed: int) -> AdapterState:
    """Version 1 from the profiles: bases and values by their sketches, and the weights' scores where they have any.

    A weight that no board reached gets random rows of value 0, and score 0: as in a round, the mean is over all boards.
    """
    _check_names(state, total)
    weights = {
        name: _with_basis(
            _scored(weight, total, name),
            total.sketches.get(name, np.zeros((0, weight.shape[1]))),
            total.n_examples,
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
    nothing = RoundSum(n_examples=1, n_updates=0, b={}, sketches={})
    return first_basis(state, nothing, max_rank=max_rank, seed=seed)


def _scored(weight: WeightState, total: RoundSum, name: str) -> WeightState:
    """The weight with its mean share of the profiles' scores; unchanged where the run has none."""
    return replace(weight, score=total.shares.get(name, 0.0) / total.n_examples) if total.shares else weight


def _with_basis(weight: WeightState, sketch_sum: F64 | None, examples: int, max_rank: int, seed: int) -> WeightState:
    """The weight with the basis and values of Σ n_k·Y_k (R, n) over `examples`; as it was where no sketch came."""
    if sketch_sum is None:
        return weight
    if sketch_sum.shape[1] != weight.shape[1]:
        raise ValueError(f"sketch of shape {sketch_sum.shape} does not fit a {weight.shape} weight")
    count = min(max_rank, *weight.shape)
    rows, values = _leading(sketch_sum / examples, count)
    basis = completed(rows, count, seed)
    squares = np.zeros(count)
    squares[: len(values)] = values
    return replace(weight, basis=basis.astype(np.float32), values=_worth(squares, weight.score))


def _worth(squares: F64, score: float | None) -> F64:
    """What strands of these σ² (R,) are worth. A score whose sketch is zero is shared equally: no row is known to be
    better than another."""
    if score is None:
        return squares
    total = float(squares.sum())
    shares = squares / total if total > 0 else np.full(len(squares), 1 / len(squares))
    return score * shares


def _leading(sketch: NDArray[np.float64], count: int) -> tuple[F64, F64]:
    """At most `count` right singular vectors of a sketch and their σ², without those that are zero to rounding."""
    _, s, vt = np.linalg.svd(sketch, full_matrices=False)
    kept = min(count, significant(s))
    return with_signs(vt[:kept])[0], s[:kept] ** 2


# --- what boards get -----------------------------------------------------------------------------------------------


def cut(state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
    """What a board of these ranks (manifest order) downloads: whole contexts and leading rows of the bases, in `dtype`.

    Raises WireError where there are not as many ranks as weights, or one is larger than the weight's basis.
    """
    if len(ranks) != len(state.weights):
        raise WireError(f"{len(ranks)} ranks were asked for, but the run has {len(state.weights)} weights")
    return tuple(_part(name, w, rank, dtype) for (name, w), rank in zip(state.weights.items(), ranks, strict=True))


def _part(name: str, weight: WeightState, rank: int, dtype: Dtype) -> AdapterPart:
    if not 0 <= rank <= len(weight.basis):
        raise WireError(f"rank {rank} was asked for {name}, whose basis has {len(weight.basis)} rows")
    return AdapterPart(
        name=name,
        context_b=pack(weight.context_b, dtype),
        context_a=pack(weight.context_a, dtype),
        basis=pack(weight.basis[:rank], dtype),
    )
