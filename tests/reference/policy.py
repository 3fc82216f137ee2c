"""The policy loss as the papers write it, in float64 and one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def loss(likelihood: Tensor, old: Tensor, reference: Tensor, advantages: Tensor, *, clip: float, kl: float) -> Tensor:
    """Σ over tokens of - min(ρ·A, clip(ρ)·A) + β·(π_ref/π - log(π_ref/π) - 1): equations 3 and 4 of arXiv 2402.03300
    without their means. All (tokens,) float64."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(likelihood)):
        ratio = torch.exp(likelihood[i]) / torch.exp(old[i])
        clipped = torch.clip(ratio, 1 - clip, 1 + clip)
        gain = torch.min(ratio * advantages[i], clipped * advantages[i])
        away = torch.exp(reference[i]) / torch.exp(likelihood[i])
        total = total - gain + kl * (away - torch.log(away) - 1)
    return total
