"""What a board changed of the strands that it was sent."""

from __future__ import annotations

import numpy as np

from aggregator.merge.state import Factors


def change(left: Factors, start: Factors) -> Factors | None:
    """b·a − b₀·a₀ = (b − b₀)·a + b₀·(a − a₀) as factors of twice the rank; None where not a bit has changed.

    Written in differences, so that a small change of a large adapter keeps its digits. Raises ValueError where the
    ranks differ.
    """
    if left.b.shape != start.b.shape or left.a.shape != start.a.shape:
        raise ValueError(f"factors of shapes {left.b.shape} and {left.a.shape} did not start at {start.b.shape}")
    by_b, by_a = left.b - start.b, left.a - start.a
    if not by_b.any() and not by_a.any():
        return None
    return Factors(np.concatenate([by_b, start.b], axis=1), np.concatenate([left.a, by_a]))
