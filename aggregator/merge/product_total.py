"""A round of a rule that averages products B·A: their running sums, and how much trained each weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from aggregator.merge.bases import next_version
from aggregator.merge.changes import change
from aggregator.merge.products import ProductSum, add, factors
from aggregator.merge.state import F64, AdapterState, Factors, WeightState
from aggregator.merge.step import MergeSettings, stepped
from aggregator.merge.sums import Contribution, Gathered, gather


@dataclass(frozen=True, slots=True, eq=False)
class ProductTotal(Gathered):
    """And Σ w_k·B_k·A_k, and of each weight Σ w_k over the boards that trained it."""

    products: Mapping[str, ProductSum] = field(default_factory=dict)
    trained: Mapping[str, float] = field(default_factory=dict)

    def change(self, name: str) -> tuple[F64, F64] | None:
        """The mean over all boards as factors: one that did not train the weight counts as zero, as no change."""
        return self._over(name, self.weight)

    def goal(self, name: str) -> tuple[F64, F64] | None:
        """The mean over the boards that trained the weight: the others did not say that it should be zero."""
        return self._over(name, self.trained.get(name, 0.0))

    def _over(self, name: str, divisor: float) -> tuple[F64, F64] | None:
        if name not in self.products:
            return None
        b, a = factors(self.products[name])
        return b / divisor, a


def fold_products(total: ProductTotal | None, added: Contribution) -> ProductTotal:
    """The sums with one more board's products. Neither argument changes."""
    return _folded(total, added, added.strands)


def fold_changes(total: ProductTotal | None, added: Contribution) -> ProductTotal:
    """The sums with what one more board changed of the strands it was sent. Neither argument changes."""
    changes = {}
    for name, left in added.strands.items():
        changed = change(left, added.start[name]) if name in added.start else left
        if changed is not None:
            changes[name] = changed
    return _folded(total, added, changes)


def merge_changes(state: AdapterState, total: ProductTotal, settings: MergeSettings) -> AdapterState:
    """The next version: the mean of what was summed is added. It is over all boards: one that did not train a weight
    changed nothing there. Raises ValueError where the sum does not fit the state (screened updates always do)."""
    total.check_names(state, total.products)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped(weight, total.change(name), settings)

    return next_version(state, total, settings, step)


def _folded(total: ProductTotal | None, added: Contribution, parts: Mapping[str, Factors]) -> ProductTotal:
    before = total or ProductTotal()
    products, trained = dict(before.products), dict(before.trained)
    for name, product in parts.items():
        products[name] = add(products.get(name), product, added.weight)
        trained[name] = trained.get(name, 0.0) + added.weight
    sums = gather(before, added)
    return ProductTotal(**sums, products=MappingProxyType(products), trained=MappingProxyType(trained))
