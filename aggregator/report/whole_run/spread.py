"""How a number is spread over boards: its mean, its worst tenth, and how even it is. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any


def spread(values: Sequence[float], *, is_lower_better: bool) -> dict[str, Any]:
    """Figures of a number that boards have, each board counting once; None where nobody has it.

    `worst_tenth` is the mean over the tenth of the boards that is worst off, one board at least; `deviation` the
    standard deviation over the boards; `jain` Jain's index, (Σx)² / (n·Σx²): 1 where all have the same, 1/n where one
    has all (Jain, Chiu and Hawe 1984).
    """
    if not values:
        return dict.fromkeys(("mean", "worst_tenth", "worst", "best", "deviation", "jain"), None) | {"boards": 0}
    worst_first = sorted(values, reverse=is_lower_better)
    return {
        "mean": fmean(values),
        "worst_tenth": fmean(worst_first[: math.ceil(len(values) / 10)]),
        "worst": worst_first[0],
        "best": worst_first[-1],
        "deviation": pstdev(values),
        "jain": jain(values),
        "boards": len(values),
    }


def jain(values: Sequence[float]) -> float | None:
    """Jain's index of numbers that are at least 0; None where all of them are 0, or there is none."""
    largest = max(values, default=0.0)
    if not largest > 0:
        return None
    parts = [value / largest for value in values]  # squares of what boards claim may be beyond a double
    return sum(parts) ** 2 / (len(parts) * sum(part * part for part in parts))
