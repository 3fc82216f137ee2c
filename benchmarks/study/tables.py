"""Statistics of runs with several seeds, and markdown tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}
"""Student's t for a two-sided interval of 95 %, by degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean over seeds, and standard deviation."""

    mean: float
    deviation: float

    def text(self, digits: int, *, signed: bool = False) -> str:
        sign = "+" if signed else ""
        return f"{self.mean:{sign}.{digits}f} ± {self.deviation:.{digits}f}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation, which is 0 for a single value."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else 0.0)


def spread_text(values: Sequence[float], digits: int, *, signed: bool = False) -> str:
    """Mean ± standard deviation as text; the mean alone for a single value."""
    text = spread(values).text(digits, signed=signed)
    return text if len(values) > 1 else text.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference by pairs of equal seeds: mean, standard deviation, half the width of the 95 % interval."""

    spread: Spread
    margin: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return abs(self.spread.mean) > self.margin

    def text(self, digits: int) -> str:
        """Mean ± standard deviation, in bold where it is clear."""
        text = self.spread.text(digits, signed=True)
        return f"**{text}**" if self.is_clear else text


def paired(deltas: Sequence[float]) -> Difference:
    """The difference that pairs of runs show, one delta each; Student's t for two to five pairs."""
    both = spread(deltas)
    return Difference(both, T_95[len(deltas) - 1] * both.deviation / len(deltas) ** 0.5)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, n_left: int = 1) -> str:
    """A markdown table; the first `n_left` columns are aligned left, as text is, the others right."""
    rule = "|" + " --- |" * n_left + " ---: |" * (len(columns) - n_left)
    return "\n".join([f"| {' | '.join(columns)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])
