"""A measured mean and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Row: TypeAlias = "tuple[str, Score]"
"""What was measured, and what came out."""


@dataclass(frozen=True, slots=True)
class Score:
    """A mean with half the width of its 95 % interval (normal approximation)."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Score:
        """Average values."""
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        return cls(mean, 1.96 * math.sqrt(variance / len(values)))

    def percent(self) -> str:
        """Write as ``12.3 ± 0.4``, times 100."""
        return f"{100 * self.mean:.1f} ± {100 * self.half_width:.1f}"
