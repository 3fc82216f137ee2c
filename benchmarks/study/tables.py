"""What tables of fleets have in common: means over seeds, paired differences, bytes to a loss; all in markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

from benchmarks.scope.tables import T_95
from benchmarks.simulation.setting import History

Measure = Callable[[History], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean over seeds, and standard deviation."""

    mean: float
    deviation: float

    def text(self, digits: int, *, signed: bool = False) -> str:
        sign = "+" if signed else ""
        return f"{self.mean:{sign}.{digits}f} ± {self.deviation:.{digits}f}"


def spread(values: Sequence[float]) -> Spread:
    return Spread(fmean(values), stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True, slots=True)
class Difference:
    """By pairs of equal seeds: mean, standard deviation, and half the width of the 95 % interval (Student's t)."""

    spread: Spread
    margin: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return abs(self.spread.mean) > self.margin

    def text(self, digits: int) -> str:
        """In bold where it is clear."""
        text = self.spread.text(digits, signed=True)
        return f"**{text}**" if self.is_clear else text


def difference(histories: Iterable[History], reference: Iterable[History], measure: Measure) -> Difference | None:
    """`histories` minus `reference`; None with fewer than two seeds in common."""
    known = {history.setting.seed: measure(history) for history in reference}
    deltas = [measure(history) - known[history.setting.seed] for history in histories if history.setting.seed in known]
    if len(deltas) < 2:
        return None
    found = spread(deltas)
    return Difference(found, T_95[len(deltas) - 1] * found.deviation / len(deltas) ** 0.5)


def mean_loss(history: History) -> float:
    return history.last.mean


def worst_loss(history: History) -> float:
    return history.last.worst


def total_bytes_to(history: History, loss: float) -> float | None:
    """Bytes up and down of the fleet until its mean loss is `loss`, linear between evaluations; None if it never is."""
    points = history.points
    for before, after in pairwise(points):
        if after.mean <= loss:
            share = (before.mean - loss) / (before.mean - after.mean) if before.mean > loss else 0.0
            start, end = (point.up_bytes + point.down_bytes for point in (before, after))
            return start + share * (end - start)
    return None


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "| --- |" + " ---: |" * (len(columns) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
