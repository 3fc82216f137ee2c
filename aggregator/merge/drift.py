"""Weights by drift: boards that train only a part of what the model has learnt count less in the next version (FedHL).

    w_k ← w_k / (1 + λ·d_k)          d_k = ‖W_g − B⁰_k·A⁰_k‖² / ‖W_g‖², over all weights together, 0 … 1

B⁰_k·A⁰_k is what board k began at, as it was sent it: d_k is the part of the global adapter that it does not train.
Where boards train B on rows of one basis, and begin at zero, d_k is the part of the basis' values, σ² of the gradient
sketches, that lies beyond the rows of board k. Until the model has learnt anything, d_k is 0 for all.

Source: FedHL (arXiv 2505.18494): boards of low rank begin at a truncated model, so that their gradients are not those
of the global one, and the weights of boards should make the drift that follows from that least. Gradients differ by at
most L·‖W_g − W_k‖. Of a mean with weights p_k the square of the drift is then bounded by a multiple of
Σ p_k²/n_k·(1 + λ·d_k), where 1 stands for the drift of the local steps, which all boards have, and λ for how much more
truncation does; p_k ∝ n_k / (1 + λ·d_k) is its minimum. This form is ours: of the paper we have read that it derives
such weights, not its formula (decision 0081). With the rule `delta`, which adds what boards changed to the whole global
adapter, it is FedHL as far as we know it.

The server works d_k out by itself, from what it sent: no board can claim it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aggregator.merge.state import F64, AdapterState, Factors, WeightState
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits


def drift_weights(weights: Mapping[str, float], drifts: Mapping[str, float], strength: float) -> dict[str, float]:
    """The weights of boards, those of boards that drift reduced. One whose drift is not known keeps its weight.

    Args:
        weights: of the boards that count in a round, each above 0.
        drifts: d_k of some of them, each from 0 to 1.
        strength: λ, at least 0.
    """
    return {board: weight / (1 + strength * drifts.get(board, 0.0)) for board, weight in weights.items()}


def knows_drift(traits: Traits) -> bool:
    """Whether it is known under such a rule what a board does not train: it begins at the global adapter, or trains on
    rows that the rounds' sketches have ordered."""
    return traits.has_start or traits.sketches


def drift(state: AdapterState, added: Contribution, traits: Traits) -> float:
    """d_k of one board, whose contribution was trained on `state`; 0 while there is nothing that it could leave out."""
    left = whole = 0.0
    for name, weight in state.weights.items():
        if traits.has_start:
            left += _left_out(weight, added.start.get(name))
            whole += _left_out(weight, None)
        else:
            trained = added.strands.get(name)
            left += float(weight.values[0 if trained is None else len(trained.a) :].sum())
            whole += float(weight.values.sum())
    return min(1.0, left / whole) if whole > 0 else 0.0


def _left_out(weight: WeightState, start: Factors | None) -> float:
    """‖W_g − B⁰·A⁰‖²; ‖W_g‖² without a start."""
    b, a = weight.frozen_b.astype(np.float64), weight.frozen_a.astype(np.float64)
    if start is not None:
        b, a = np.concatenate([b, -start.b.astype(np.float64)], axis=1), np.concatenate([a, start.a.astype(np.float64)])
    return _square(b, a)


def _square(b: F64, a: F64) -> float:
    """‖b·a‖² = Σ over the entries of (bᵀb)∘(aaᵀ); no m × n matrix is formed. Rounding may leave less than zero."""
    return max(0.0, float(np.sum((b.T @ b) * (a @ a.T))))
