"""Logistic regression with a ridge penalty, fitted by Newton's method in double precision."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_STEPS = 50
"""Newton steps at most; a ridge makes the problem strictly convex, and ten are enough."""

TOLERANCE = 1e-8
"""The fit is done where no coefficient moves by more than this."""


def fit_logistic(features: Tensor, is_good: Tensor, ridge: float) -> tuple[Tensor, float]:
    """The weights (p,) and the offset that minimise Σ log(1 + exp(-±(x·w + c))) + ridge/2·‖w‖².

    Args:
        features: (n, p) float64, best of about equal deviation.
        is_good: (n,) bool; both values are there.
        ridge: above 0. The offset is not held down.

    Takes (p + 1)² numbers, and O(n·p²) operations a step.
    """
    x = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], 1)
    y, penalty = is_good.to(features.dtype), torch.full((x.shape[1],), ridge, dtype=features.dtype)
    penalty[-1] = 0.0
    weights = torch.zeros_like(penalty)
    loss = _loss(x, y, penalty, weights)
    for _ in range(MAX_STEPS):
        probabilities = torch.sigmoid(x @ weights)
        gradient = x.t() @ (probabilities - y) + penalty * weights
        curvature = (x.t() * (probabilities * (1 - probabilities))) @ x + torch.diag(penalty)
        curvature[-1, -1] += 1e-12  # where all probabilities are 0 or 1 there is none left along the offset
        step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(curvature))[:, 0]
        size = 1.0
        while (new := _loss(x, y, penalty, weights - size * step)) > loss and size > 1e-6:
            size /= 2
        weights, loss = weights - size * step, new
        if float((size * step).abs().max()) < TOLERANCE:
            break
    return weights[:-1], float(weights[-1])


def _loss(x: Tensor, y: Tensor, penalty: Tensor, weights: Tensor) -> float:
    scores = x @ weights
    likelihoods = torch.nn.functional.softplus(scores) - y * scores
    return float(likelihoods.sum() + (penalty * weights * weights).sum() / 2)
