"""Adam on the strands. torch.optim's step loads torch's compiler, 60 MB and more that a small board does not have."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wire.adam import BETAS

EPSILON = 1e-8
"""Added to the root of the mean square, as in the paper."""

MAX_NORM = 1.0
"""Longer gradients are shortened to this length, all weights taken together (Pascanu et al. 2013)."""


class Adam:
    """Adam (Kingma and Ba 2015) without weight decay: in each round the factors start where the server says.

    Args:
        values: fp32 by name, changed in place by `step`.
        learning_rate: constant over the round.

    Attributes:
        n_steps: steps taken, which correct the averages' start at zero.
        means: running mean of each value's gradient.
        squares: running mean of its square.
    """

    def __init__(self, values: Mapping[str, Tensor], learning_rate: float) -> None:
        self.n_steps = 0
        self.means = {name: torch.zeros_like(value, requires_grad=False) for name, value in values.items()}
        self.squares = {name: torch.zeros_like(value, requires_grad=False) for name, value in values.items()}
        self._values = values
        self._learning_rate = learning_rate

    @torch.no_grad()
    def step(self, divisor: float) -> float:
        """Apply and clear the values' gradients.

        Nothing is changed where their length is not finite.

        Args:
            divisor: the gradients are divided by it; the target tokens that they were summed over.

        Returns:
            Their length, all values together, after that division and before clipping.
        """
        grads = {name: value.grad for name, value in self._values.items() if value.grad is not None}
        norm = float(torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()]).norm()) / divisor
        if norm == norm and norm != float("inf"):
            self.n_steps += 1
            for name, grad in grads.items():
                self._update(name, grad.mul_(min(1.0, MAX_NORM / max(norm, 1e-12)) / divisor))
        for value in self._values.values():
            value.grad = None
        return norm

    def _update(self, name: str, grad: Tensor) -> None:
        mean, square = self.means[name], self.squares[name]
        mean.lerp_(grad, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
        spread = (square / (1 - BETAS[1] ** self.n_steps)).sqrt_().add_(EPSILON)
        self._values[name].addcdiv_(mean, spread, value=-self._learning_rate / (1 - BETAS[0] ** self.n_steps))
