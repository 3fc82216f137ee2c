"""The boards' optimiser, as far as both sides must know it: its constants, and how far it can move a value.

Boards train with Adam (Kingma and Ba 2015) at a constant learning rate and without weight decay. Its step is its mean
gradient over the root of its mean square, and so has a bound that no gradient can break.
"""

from __future__ import annotations

import math

BETAS = (0.9, 0.999)
"""Decay of the mean, and of the mean square."""


def farthest(learning_rate: float, steps: int) -> float:
    """The farthest that any value can be from where it began, whatever the gradients were.

    Step t is Σ w_i·g_i / √(Σ u_i·g_i²) with the weights of its two corrected means, and by Cauchy and Schwarz at most
    √(Σ w_i²/u_i): 1 in the first step, 1.17 in the twentieth, 7.3 after thousands.

    Args:
        learning_rate: Adam's, constant over all steps.
        steps: how many there are, from zero moments on.

    Returns:
        The distance, in the value's own unit.
    """
    beta, beta2 = BETAS
    ratio = beta * beta / beta2

    def largest(t: int) -> float:
        # The weights are geometric: Σ w_i²/u_i is a geometric sum with `ratio`, times both corrections.
        mean = (1 - beta) / (1 - math.pow(beta, t))
        square = (1 - beta2) / (1 - math.pow(beta2, t))
        return mean * math.sqrt((1 - math.pow(ratio, t)) / (1 - ratio) / square)

    return learning_rate * sum(map(largest, range(1, steps + 1)))
