"""Which strands each selection of benchmarks.selection trains, at one number of parameters."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.selection.results import Selection
from benchmarks.simulation.solo import n_parameters
from braid_common.seeds import derive_seed
from edge_client.plan.strand_selection import basis_rows, strand_order
from wire.messages import RunInfo, Weight


def qv_ranks(weights: Sequence[Weight], rank: int) -> tuple[int, ...]:
    """Every q and v of every attention at one rank: Hu et al. 2021 (arXiv 2106.09685), PEFT's default for T5."""
    return tuple(rank if weight.name.endswith((".q", ".v")) else 0 for weight in weights)


def budget(weights: Sequence[Weight], qv_rank: int) -> int:
    """Values of B, Σ rank·rows, that q and v train at that rank."""
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
    """Ranks of the strands in `order` that fit, one after the other; of a weight the leading ones."""
    ranks = [0] * len(weights)
    for index in order:
        if weights[index].rows <= n_values:
            n_values -= weights[index].rows
            ranks[index] += 1
    return tuple(ranks)
