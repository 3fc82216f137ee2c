"""The geometric median (RFA): the point whose summed distance to all boards, not squared, is least.

    z = Σ w_k·ΔW_k,    w_k ← p_k / max(ν, ‖ΔW_k − z‖),    Σ w_k = 1;    repeated (smoothed Weiszfeld)

Source: Pillutla et al., "Robust Aggregation for Federated Learning" (arXiv 1912.13445). z is always a weighted mean of
the boards, so that it is found from their Gram matrix alone, and the merge rule gets the boards at their new weights.
What a board did not train is zero, as in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aggregator.merge.defences.defence import Filtered, any_rule
from aggregator.merge.gram import gram
from aggregator.merge.state import F64
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits

SUMMARY = "boards far from the middle count less (Pillutla et al. 2019)"
MIN_BOARDS = 3
fits = any_rule

SMOOTHING = 1e-5
"""ν as a part of the median norm. The paper's ν is 1e-6 at no particular scale."""

MAX_ITERATIONS = 100
"""The paper finds three enough for training; of small matrices a hundred cost nothing."""

_SETTLED = 1e-9
"""No weight changes by more: the iteration is over."""


def filtered(boards: Sequence[Contribution], traits: Traits, attackers: float) -> Filtered:
    """Every board at its weight in the geometric median; the weights' sum stays."""
    total = sum(board.weight for board in boards)
    fair = np.array([board.weight / total for board in boards])
    found = weights(gram(boards, traits.space), fair)
    counted = (replace(board, weight=float(w) * total) for board, w in zip(boards, found, strict=True))
    return Filtered(tuple(counted), tuple((found / fair).tolist()))


def weights(inner: F64, fair: F64) -> F64:
    """The weights of the geometric median, by the smoothed Weiszfeld iteration (arXiv 1912.13445).

    Args:
        inner: (K, K) Gram matrix of the boards' changes.
        fair: (K,) the boards' shares p, sum 1.

    Returns:
        (K,) weights, sum 1.
    """
    own = np.diag(inner)
    least = SMOOTHING * float(np.median(np.sqrt(np.maximum(own, 0.0))))
    if not least > 0:  # half of the boards changed nothing: so does the median
        least = SMOOTHING * float(np.sqrt(own.max(initial=0.0)))
    found = fair
    for _ in range(MAX_ITERATIONS if least > 0 else 0):
        # ‖ΔW_k − z‖² with z = Σ w_j·ΔW_j, by inner products alone: G_kk − 2·(G·w)_k + wᵀ·G·w
        squares = own - 2 * inner @ found + found @ inner @ found
        pulls = fair / np.maximum(np.sqrt(np.maximum(squares, 0.0)), least)
        before, found = found, pulls / pulls.sum()
        if np.abs(found - before).max() < _SETTLED:
            break
    return found
