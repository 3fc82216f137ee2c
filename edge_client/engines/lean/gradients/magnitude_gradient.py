"""Magnitude times gradient: to first order, how much the loss would change without entries of a weight.

    score(W) = Σ_ij |W_ij·G_ij|        G = ∂L/∂W (m, n) of a micro-batch

The connection sensitivity |w·∂L/∂w| of SNIP (Lee et al. 2019, arXiv 1810.02340), a first-order Taylor expansion of the
loss as in Molchanov et al. 2019 (arXiv 1906.10771), summed over a weight. SNIP takes it on one mini-batch; here it is
the mean over micro-batches, weighted by target tokens, in nats per target token. SNIP's division by the sum over all
weights is left to the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from quantize.weight import FrozenWeight
from wire.run import Weight

BLOCK_VALUES = 1 << 16
"""Entries of G that exist at once (one row at least): 256 KiB in fp32, a third of FLAN-T5-small's smallest weight."""


class Saliency:
    """Σ|W∘G| of one weight, summed over backward passes. G is formed a block of rows at a time, and dropped."""

    def __init__(self, weight: FrozenWeight) -> None:
        self._weight = weight
        self.sum = torch.zeros((), dtype=torch.float64, device=weight.device)

    def add(self, grad: Tensor, x: Tensor) -> None:
        """Count one backward pass of the summed loss: grad (T, m) by the output, x (T, n) the input, same dtype."""
        for rows in _blocks(*self._weight.shape):
            gradient = (grad[:, rows].t() @ x).float()
            self.sum += gradient.mul_(self._weight.dense_rows(rows, torch.float32)).abs_().sum()


class MagnitudeGradient:
    """The saliencies of all `weights`; `frozen` has their values by name."""

    def __init__(self, weights: Sequence[Weight], frozen: Mapping[str, FrozenWeight]) -> None:
        self.observers = {weight.name: Saliency(frozen[weight.name]) for weight in weights}
        self._n_tokens = 0

    def count(self, n_target_tokens: int) -> None:
        """Say how many target tokens the last backward passes had."""
        self._n_tokens += n_target_tokens

    def scores(self) -> dict[str, float]:
        """The mean of Σ|W∘G| of every weight, in nats per target token."""
        return {name: float(saliency.sum) / self._n_tokens for name, saliency in self.observers.items()}


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK_VALUES // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
