"""Weights by loss: boards that the model serves badly count more in the next version (q-FFL).

    w_k ← w_k · (F_k / F̄)^q          F̄ = Σ w_k·F_k / Σ w_k over the boards whose F_k is known

Source: Li et al., "Fair Resource Allocation in Federated Learning" (arXiv 1905.10497), eq. 2: the gradient of
Σ p_k·F_k^(q+1) / (q+1) is Σ p_k·F_k^q·∇F_k. F_k is the loss of the version that board k was sent, on its held-out text.
Dividing by F̄ changes nothing in a mean, and keeps weights in the unit of examples. The paper's own solver, q-FedAvg,
also scales the step by an estimate of a Lipschitz constant, 1/η of plain gradient descent; decision 0078 says why that
has no place here. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

LEAST_LOSS = 1e-10
"""A loss of 0 counts as this, as in the authors' code: a board of no weight at all could not be summed."""


def fair_weights(weights: Mapping[str, float], losses: Mapping[str, float], q: float) -> dict[str, float]:
    """The weights of boards, those with a higher loss raised and those with a lower one reduced.

    A board whose loss is not known keeps its weight, as if its loss were the mean. Without `q`, or where no loss is
    known, all keep theirs.

    Args:
        weights: of the boards that count in a round, each above 0.
        losses: of some of them, each at least 0 and finite.
        q: at least 0.
    """
    known = {board: max(losses[board], LEAST_LOSS) for board in weights if board in losses}
    if not q or not known:
        return dict(weights)
    mean = sum(weights[board] * loss for board, loss in known.items()) / sum(weights[board] for board in known)
    return {board: weight * (known.get(board, mean) / mean) ** q for board, weight in weights.items()}
