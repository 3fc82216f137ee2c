"""Selection of strands: the most valuable first, by value per cost, as far as a board's budgets go.

The order is the same for every board of a run, by value per byte of training memory, whatever its format or
micro-batch. So the choice of a small board is contained in that of a larger one but for the last few strands, and every
strand trained by few is trained by the boards that have most memory. Where a round's bytes or seconds are short as
well, the order by value per cost of each is tried too, and the best result is kept.

With one order, more of any budget never gives less: two budgets lead to the same strands up to the first one that only
the larger can pay, and what the smaller may still take after it is bounded by that one's value.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from operator import mul

from edge_client.plan.adapter_memory import TRAINED_VALUE_BYTES
from wire.checks import basis_rank
from wire.run import RunInfo, Weight

BYTES_PER_COLUMN = 2
"""A strand's row of the basis, in bf16, in which most boards compute. In fp32 it is twice that; the order must not
depend on the board."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A linear budget: what one strand of each weight costs, in manifest order, and what all strands together may."""

    costs: Sequence[float]
    limit: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory as a budget. Its peak is not quite linear in the strands, so it is asked.

    Attributes:
        peak: of ranks in manifest order, in bytes; more strands never lower it.
        limit: what it may be.
        most: what one more strand adds to it at most, whatever the others are.
    """

    peak: Callable[[Sequence[int]], float]
    limit: float
    most: Sequence[float]


@dataclass(frozen=True, slots=True)
class RankedWeight:
    """A weight's place in the run's ranking: its share of all importance, and how much of that its first strand has."""

    name: str
    share: float
    first_share: float
    n_strands: int


def strand_bytes(weight: Weight, *, trains_a: bool = False) -> int:
    """Training memory of one strand of a weight, without the activations that all its strands share: of its column of
    B, and of its row of A where that is trained."""
    if trains_a:
        return TRAINED_VALUE_BYTES * (weight.rows + weight.columns)
    return TRAINED_VALUE_BYTES * weight.rows + BYTES_PER_COLUMN * weight.columns


def basis_rows(run: RunInfo) -> tuple[int, ...]:
    """Strands that each weight has: rows of its shared basis."""
    return tuple(basis_rank(weight, run.max_rank) for weight in run.weights)


def strand_values(run: RunInfo) -> list[list[float]]:
    """Value of each strand of each weight: the run's values, or 1 each before a ranking exists.

    Within a weight none is above the one before it: a leading strand is never worth less than one behind it.
    """
    rows = basis_rows(run)
    if not run.values:
        return [[1.0] * n_strands for n_strands in rows]
    return [_descending(values, n_strands) for values, n_strands in zip(run.values, rows, strict=True)]


def strand_order(run: RunInfo, costs: Sequence[float] | None = None) -> list[int]:
    """All strands of a run in the order in which boards take them; an entry is the index of the strand's weight.

    The k-th occurrence of a weight stands for its k-th leading strand. `costs`: of one strand of each weight, its
    training memory unless given. Before a ranking exists all strands count as equal: every weight gives its first, then
    every weight its second, and so on.
    """
    costs = costs or _strand_bytes(run)
    keys = []
    for index, (values, cost) in enumerate(zip(strand_values(run), costs, strict=True)):
        cost = cost or math.inf  # one that costs nothing is one that these modes of training leave out
        keys += [(-value / cost if run.values else 0.0, strand, index) for strand, value in enumerate(values)]
    return [index for _, _, index in sorted(keys)]


def allot(order: Sequence[int], n_weights: int, n_strands: int) -> tuple[int, ...]:
    """Ranks per weight of the first `n_strands` strands of `strand_order`. Larger counts contain smaller ones."""
    ranks = [0] * n_weights
    for index in order[:n_strands]:
        ranks[index] += 1
    return tuple(ranks)


def ranking(run: RunInfo) -> list[RankedWeight]:
    """The run's weights, the most important first; empty before a ranking exists."""
    values = strand_values(run) if run.values else []
    total = math.fsum(map(math.fsum, values)) or 1.0
    weights = [
        RankedWeight(weight.name, math.fsum(row) / total, row[0] / (math.fsum(row) or 1.0), len(row))
        for weight, row in zip(run.weights, values, strict=bool(values))
    ]
    return sorted(weights, key=lambda weight: (-weight.share, weight.name))


class Selector:
    """Selects strands of one run; orders are made once, for any number of budgets.

    `without`, here and below: weights (indices in the manifest) that are left out.
    """

    def __init__(self, run: RunInfo) -> None:
        self._run = run
        self._values = strand_values(run)
        self._worth = [list(accumulate(values, initial=0.0)) for values in self._values]
        self._total = math.fsum(worth[-1] for worth in self._worth)
        self._bytes = _strand_bytes(run)
        self._orders: dict[tuple[float, ...], list[int]] = {}

    def share(self, ranks: Sequence[int]) -> float:
        """Part of all importance that the leading `ranks` strands have; of all strands where no value is known."""
        if not self._total:
            return sum(ranks) / sum(map(len, self._values))
        return math.fsum(worth[rank] for worth, rank in zip(self._worth, ranks, strict=True)) / self._total

    def select(
        self, memory: Memory, others: Sequence[Budget] = (), without: Collection[int] = ()
    ) -> tuple[int, ...] | None:
        """Strands per weight that keep all budgets; None where not even none do, or not one fits.

        Costs are at least 0. Of a budget that could pay for every strand they decide nothing.
        """
        short = [budget for budget in others if self._total_cost(budget.costs, without) > budget.limit]
        orders = [self._shared_order(), *(self._order(budget.costs) for budget in short)]
        selections = [self._greedy(_filtered(order, without), memory, short) for order in orders]
        best = max(selections, key=self.share)
        return best if any(best) else None

    def least_memory(self, memory: Memory, without: Collection[int] = ()) -> float:
        """The smallest limit at which `select` finds a strand, where nothing else is short."""
        order = _filtered(self._shared_order(), without)
        bare = memory.peak((0,) * len(self._values))
        least, ceiling = memory.peak(allot(order, len(self._values), 1)), math.inf
        for index in dict.fromkeys(order):
            if self._values[index][0] <= ceiling:
                least = min(least, bare + memory.most[index])
            ceiling = min(ceiling, self._values[index][0])
        return least

    def _total_cost(self, costs: Sequence[float], without: Collection[int]) -> float:
        rows = enumerate(zip(self._values, costs, strict=True))
        return sum(len(values) * cost for index, (values, cost) in rows if index not in without)

    def _shared_order(self) -> list[int]:
        """The order of all boards of a run."""
        return self._order(self._bytes)

    def _order(self, costs: Sequence[float]) -> list[int]:
        key = tuple(costs)
        if key not in self._orders:
            self._orders[key] = strand_order(self._run, key)
        return self._orders[key]

    def _greedy(self, order: Sequence[int], memory: Memory, others: Sequence[Budget]) -> tuple[int, ...]:
        """Take strands in `order` while all fit, then of those behind what still fits, but no more of that than the
        strands that did not fit are worth (this module's text)."""
        n_weights = len(self._values)
        # Linear budgets say at once how many of the first strands they pay for.
        n_first = min((_affordable(order, budget) for budget in others), default=len(order))
        if memory.peak(allot(order, n_weights, n_first)) > memory.limit:
            # The peak grows with the strands: a binary search finds the most of them that fit.
            counts = range(n_first)
            n_first = bisect_right(counts, memory.limit, key=lambda n: memory.peak(allot(order, n_weights, n))) - 1
        if n_first < 0:
            return (0,) * n_weights
        ranks = list(allot(order, n_weights, n_first))
        costs = [memory.most, *(budget.costs for budget in others)]
        rests = [memory.limit - memory.peak(ranks)]
        rests += [budget.limit - sum(map(mul, budget.costs, ranks)) for budget in others]
        return self._filled(ranks, islice(order, n_first, None), costs, rests)

    def _filled(
        self, ranks: Sequence[int], behind: Iterable[int], costs: Sequence[Sequence[float]], rests: Sequence[float]
    ) -> tuple[int, ...]:
        """Add to `ranks` what can still be paid for of the strands `behind`, from what each budget has left."""
        filled, blocked = list(ranks), set[int]()
        ceiling = math.inf  # what may be added in all: a strand that did not fit is worth no less than all behind it
        for index in behind:
            if index in blocked:  # strands of a weight are taken from the first on
                continue
            value = self._values[index][filled[index]]
            after = [rest - kind[index] for rest, kind in zip(rests, costs, strict=True)]
            if value <= ceiling and min(after) >= 0:
                rests, ceiling = after, ceiling - value
                filled[index] += 1
            else:
                blocked.add(index)
                ceiling = min(ceiling, value)  # a larger board takes this strand: what is added must not beat it
        return tuple(filled)


def _strand_bytes(run: RunInfo) -> list[int]:
    return [strand_bytes(weight, trains_a=run.settings.trains_a) for weight in run.weights]


def _filtered(order: Sequence[int], without: Collection[int]) -> Sequence[int]:
    return [index for index in order if index not in without] if without else order


def _affordable(order: Sequence[int], budget: Budget) -> int:
    """How many of the first strands of `order` the budget pays for."""
    return bisect_right(list(accumulate(map(budget.costs.__getitem__, order))), budget.limit)


def _descending(values: Sequence[float], n_strands: int) -> list[float]:
    """`n_strands` values, none above the one before it."""
    worth: list[float] = []
    for strand in range(n_strands):
        value = values[strand] if strand < len(values) else 0.0
        worth.append(min(value, worth[-1]) if worth else value)
    return worth
