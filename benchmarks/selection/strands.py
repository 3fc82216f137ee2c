"""Selections of strands that all train the same number of parameters."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from benchmarks.simulation.strands import n_parameters
from braid_common.seeds import derive_seed
from edge_client.plan.strand_selection import basis_rows, strand_order
from wire.run import RunInfo, Weight

Selection = Literal["sketch", "adalora", "magnitude_gradient", "random", "q,v"]
"""Three scores of the server's, random strands, and q and v of every attention."""


def qv_ranks(weights: Sequence[Weight], rank: int) -> tuple[int, ...]:
    """Ranks with q and v of every attention at `rank`, PEFT's default for T5 (Hu et al. 2021, arXiv 2106.09685)."""
    return tuple(rank if weight.name.endswith((".q", ".v")) else 0 for weight in weights)


def budget(weights: Sequence[Weight], qv_rank: int) -> int:
    """Values of B, Σ rank·rows, that q and v train at `qv_rank`."""
    return n_parameters(weights, qv_ranks(weights, qv_rank))


def chosen(run: RunInfo, selection: Selection, qv_rank: int, seed: int) -> tuple[int, ...]:
    """Ranks of a selection that train no more values of B than q and v at `qv_rank` do.

    A score's strands are the most valuable per value of B, by the run's values. Random ones are drawn once per seed
    among all strands; as boards train leading rows, they are so many of a weight, not which.
    """
    if selection == "q,v":
        return qv_ranks(run.weights, qv_rank)
    if selection == "random":
        order = [index for index, n_strands in enumerate(basis_rows(run)) for _ in range(n_strands)]
        random.Random(derive_seed(seed, "strands", qv_rank)).shuffle(order)
    else:
        order = strand_order(run, [weight.rows for weight in run.weights])
    return _filled(order, run.weights, budget(run.weights, qv_rank))


def _filled(order: Sequence[int], weights: Sequence[Weight], n_values: int) -> tuple[int, ...]:
    """Ranks of the strands in `order` that fit into `n_values` values of B, one after the other.

    An entry of `order` is the index of a weight, and stands for the next of its strands.
    """
    ranks = [0] * len(weights)
    n_left = n_values
    for index in order:
        if weights[index].rows <= n_left:  # a strand that is too long is left out, and shorter ones after it may fit
            n_left -= weights[index].rows
            ranks[index] += 1
    return tuple(ranks)
