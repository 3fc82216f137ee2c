"""Server optimisers: what the mean change ΔW of a round, and those before it, make of the global adapter's next step.

    none       W ← W + η·ΔW
    momentum   v ← β·v + ΔW                         W ← W + η·v                   FedAvgM (arXiv 1909.06335)
    nesterov   v ← β·v + ΔW                         W ← W + η·(ΔW + β·v)          DiLoCo's outer step (arXiv 2311.08105)
    fedadam    m ← β·m + (1 − β)·ΔW                 W ← W + η·m/(√v + τ)          FedOpt (arXiv 2003.00295)
               v ← β₂·v + (1 − β₂)·ΔW²
    fedyogi    v ← v − (1 − β₂)·ΔW²·sign(v − ΔW²)   the rest as fedadam           FedOpt
    fedadamw   W ← W + η·(m/(√v + τ) − λ·W)         the rest as fedadam           decoupled decay (arXiv 1711.05101)

All of it happens in the space of W itself: B and A are defined only up to a rotation, so moments of factors would mean
nothing in the next round. Squares and quotients are of every entry, and v begins at τ², as in FedOpt's paper.

A round that did not train a weight is a change of zero: its moments fade and go on moving it. One that was never
trained is not touched. λ·W pulls towards the base model.

The first moment is kept as factors. v is a number for every entry of a weight, and a step divided by it has full rank:
cutting that to the adapter's takes 90 ms for 768 × 768 on one EPYC core, where a step of low rank takes 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from aggregator.merge.low_rank.approximation import truncate_sum
from aggregator.merge.low_rank.matrix_sum import LowRankSum, Product, multiplied, scaled
from aggregator.merge.state import F32, F64, Factors, Moments


@dataclass(frozen=True, slots=True)
class Optimiser:
    """The constants of one, and a `summary` for run.toml. `eta` is its own step; run.toml's merge.eta may replace it.
    `squares`: how v follows ΔW², None where there is no v."""

    summary: str
    eta: float = 1.0
    beta: float = 0.0
    nesterov: bool = False
    squares: Literal["adam", "yogi"] | None = None
    beta2: float = 0.99
    tau: float = 1e-3
    decay: float = 0.0


NONE = Optimiser("the mean change itself, eta 1")

OPTIMISERS: Mapping[str, Optimiser] = MappingProxyType(
    {
        "none": NONE,
        # FedAvgM's paper. Flower's default beta, 0, would be no momentum.
        "momentum": Optimiser("a running sum of changes (FedAvgM), eta 1, beta 0.9", eta=1.0, beta=0.9),
        "nesterov": Optimiser("the same, looking ahead (DiLoCo), eta 0.7, beta 0.9", eta=0.7, beta=0.9, nesterov=True),
        # Betas and tau of FedAdam and FedYogi, and FedYogi's step, as Flower has them; its step of FedAdam, 0.1,
        # diverges on a T5 (docs/results/merging.md), so FedYogi's stands for it. The decay is torch's for AdamW.
        "fedadam": Optimiser(
            "Adam on the mean change, eta 0.01; a number for each entry of a weight", eta=0.01, beta=0.9, squares="adam"
        ),
        "fedyogi": Optimiser("Yogi on the mean change, eta 0.01; as many numbers", eta=0.01, beta=0.9, squares="yogi"),
        "fedadamw": Optimiser(
            "fedadam with 0.01 of decay towards the base", eta=0.01, beta=0.9, squares="adam", decay=0.01
        ),
    }
)
"""By their names in run.toml (`merge.optimiser`). Every constant of every optimiser stands here and nowhere else."""


def first_moment(moments: Moments | None, change: LowRankSum, optimiser: Optimiser) -> LowRankSum:
    """v, or m where there are squares too, after a round of this change, which comes first in it. No term where it is
    zero, now and before."""
    before = moments.first if moments is not None else None
    now = scaled(change, 1 - optimiser.beta) if optimiser.squares else change
    return now if before is None or not before.b.size else (*now, Product(optimiser.beta, before.b, before.a))


def second_moment(moments: Moments | None, dense_change: F64, optimiser: Optimiser) -> F32:
    """v (m, n) after a round of this change (m, n)."""
    squares = dense_change**2
    if moments is None or moments.second is None:
        before = np.full_like(squares, optimiser.tau**2)
    else:
        before = moments.second.astype(np.float64)
    # Adam's v + (1 − β₂)·(ΔW² − v) and Yogi's v + (1 − β₂)·ΔW²·sign(ΔW² − v) differ in this alone.
    towards = squares - before if optimiser.squares == "adam" else squares * np.sign(squares - before)
    return (before + (1 - optimiser.beta2) * towards).astype(np.float32)


def low_rank_step(first: LowRankSum, change: LowRankSum, optimiser: Optimiser) -> LowRankSum:
    """The step that η multiplies, for optimisers without squares. `first` is the first moment after this change."""
    if not optimiser.nesterov:
        return first
    # ΔW + β·v with v = ΔW + β·v₋: (1 + β)·ΔW + β·(the rest of v), whose terms come after those of ΔW
    return (*scaled(change, 1 + optimiser.beta), *scaled(first[len(change) :], optimiser.beta))


def dense_step(first: LowRankSum, second: F32, optimiser: Optimiser) -> F64:
    """The step (m, n) that η multiplies, for optimisers with squares."""
    return multiplied(first, np.float64) / (np.sqrt(second.astype(np.float64)) + optimiser.tau)


def kept(first: LowRankSum, second: F32 | None, rank: int) -> Moments:
    """The moments to remember: the first one cut to `rank`. Its rank would grow with every round; the adapter that it
    moves has this one."""
    return Moments(Factors(*truncate_sum(first, rank)), second)
