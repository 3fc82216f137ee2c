"""A round of a rule that averages products B·A: their running sums, and how much trained each weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from aggregator.merge.bases import next_version
from aggregator.merge.changes import (
    ChangeSum,
    add_change,
    begins_alike,
    change,
    compacted_change,
    is_changed,
    no_change,
)
from aggregator.merge.low_rank.matrix_sum import LowRankSum, scaled
from aggregator.merge.products import ProductSum, add, compacted, empty, first_long, low_rank_sum
from aggregator.merge.state import AdapterState, Factors, WeightState
from aggregator.merge.step import MergeSettings, stepped
from aggregator.merge.sums import Contribution, Gathered, gather


@dataclass(frozen=True, slots=True, eq=False)
class ProductTotal(Gathered):
    """The sums of a rule that averages products: also Σ w_k·B_k·A_k by weight, the Σ w_k over the boards that trained
    it, and apart from the products the sum of what boards changed of one and the same start."""

    products: Mapping[str, ProductSum] = field(default_factory=dict)
    changes: Mapping[str, ChangeSum] = field(default_factory=dict)
    trained: Mapping[str, float] = field(default_factory=dict)

    def change(self, name: str) -> LowRankSum:
        """The mean over all boards: one that did not train the weight counts as zero, as no change."""
        return self._over(name, self.weight)

    def target(self, name: str) -> LowRankSum:
        """The mean over the boards that trained the weight: the others did not say that it should be zero. No term
        where nobody did."""
        return self._over(name, self.trained.get(name, 0.0))

    def compacted(self) -> ProductTotal:
        name = first_long(self.products)
        if name is not None:
            products = {**self.products, name: compacted(self.products[name])}
            return replace(self, products=MappingProxyType(products))
        name = first_long({name: one.products for name, one in self.changes.items()})
        if name is not None:
            changes = {**self.changes, name: compacted_change(self.changes[name])}
            return replace(self, changes=MappingProxyType(changes))
        return self

    def _over(self, name: str, divisor: float) -> LowRankSum:
        terms: LowRankSum = self.changes[name].low_rank_sum() if name in self.changes else ()
        if name in self.products:
            terms = (*terms, *low_rank_sum(self.products[name]))
        return scaled(terms, 1 / divisor) if terms else ()


def fold_products(total: ProductTotal | None, added: Contribution) -> ProductTotal:
    """The sums with one more board's products. Neither argument changes."""
    return _folded(total, added, added.strands)


def fold_changes(total: ProductTotal | None, added: Contribution) -> ProductTotal:
    """The sums with what one more board changed of the strands it was sent. Neither argument changes; the order of
    boards does not matter to rounding."""
    changes = dict(total.changes) if total is not None else {}
    products = {}
    for name, left in added.strands.items():
        start = added.start.get(name)
        if start is None:
            products[name] = left
        elif is_changed(left, start):
            before = changes.get(name)
            if added.staleness or not (before is None or begins_alike(before, start)):
                products[name] = change(left, start)
            else:
                changes[name] = add_change(before or no_change(start), start, left, added.weight)
    return replace(_folded(total, added, products), changes=MappingProxyType(changes))


def merge_changes(state: AdapterState, total: ProductTotal, settings: MergeSettings) -> AdapterState:
    """The next version: the mean of what was summed is added. It is over all boards: one that did not train a weight
    changed nothing there. Raises ValueError where the sum does not fit the state (screened updates always do)."""
    total.check_names(state, total.products, total.changes)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped(weight, total.change(name), settings)

    return next_version(state, total, settings, step)


def _folded(total: ProductTotal | None, added: Contribution, parts: Mapping[str, Factors]) -> ProductTotal:
    before = total or ProductTotal()
    products, trained = dict(before.products), dict(before.trained)
    for name, product in parts.items():
        products[name] = add(products.get(name) or empty(product), product, added.weight)
        trained[name] = trained.get(name, 0.0) + added.weight
    sums = gather(before, added)
    return ProductTotal(**sums, products=MappingProxyType(products), trained=MappingProxyType(trained))
