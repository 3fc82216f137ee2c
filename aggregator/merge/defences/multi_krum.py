"""Multi-Krum: the mean of the boards that lie closest to each other.

    score(k) = Σ of ‖ΔW_k − ΔW_j‖² over the n − f − 2 boards j closest to k;    the n − f of lowest score count

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent" (NeurIPS 2017), which
needs n ≥ 2f + 3. Of fewer boards f is as many as n allows, ⌊(n − 3)/2⌋; of less than five, nobody is left out.

Distances are of the whole change in the space of W, through the Gram matrix. What a board did not train is zero there:
a board with many strands is far from those with few, and the price of this defence is paid by such boards first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aggregator.merge.defences.defence import Filtered, any_rule, assumed_bad
from aggregator.merge.gram import gram, squared_distances
from aggregator.merge.state import F64
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits

SUMMARY = "leaves out the boards farthest from the others (Blanchard et al. 2017)"
MIN_BOARDS = 5

fits = any_rule


def filtered(boards: Sequence[Contribution], traits: Traits, attackers: float) -> Filtered:
    """The boards that are chosen, as they are."""
    n_bad = max(0, min(assumed_bad(len(boards), attackers), (len(boards) - 3) // 2))
    if not n_bad:
        return Filtered(tuple(boards), (1.0,) * len(boards))
    order = np.argsort(scores(squared_distances(gram(boards, traits.space)), n_bad), kind="stable")
    chosen = set(order[: len(boards) - n_bad].tolist())
    kept = tuple(board for i, board in enumerate(boards) if i in chosen)
    return Filtered(kept, tuple(float(i in chosen) for i in range(len(boards))))


def scores(distances: F64, n_bad: int) -> F64:
    """Krum's score of each board, by the squared distances (n, n). Lower is better."""
    n_near = len(distances) - n_bad - 2
    nearest: F64 = np.sort(distances, axis=1)[:, 1 : 1 + n_near]  # the first is the board itself
    total: F64 = nearest.sum(axis=1)
    return total
