"""The merge rules: a module each, and a line each in `RULES`.

A rule is a module that defines five names, the members of `Rule` below, and nothing else of it is asked:

    TRAITS       what boards and the rest of the server must know; `traits.Traits` says field by field what to write
    first_basis  version 1 from the profiles: `bases.first_basis`, or `bases.first_drawn_basis` where A is random
    cut          what a board of given ranks is sent: one of the four functions of `slices`, mostly
    fold         the running sums with one more board; `sums`, `pair_total` and `product_total` have the usual ones
    merge        the next version from the sums: `bases.next_version` with what happens to each weight

To add one: write its file, with the formula and the paper at the top and `TRAITS.summary` for run.toml; add it to
`RULES`; write the slow, obvious version of it into tests/reference/rules.py and its row into
tests/aggregator/merge/test_no_op.py. `delta` is the shortest example. Settings, screening, late updates, defences,
downloads and sizes follow from TRAITS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from aggregator.merge.rules import (
    braid,
    delta,
    fed_plora,
    fedavg,
    fedsvd,
    ffa,
    flexlora,
    fresh,
    hetlora,
    rank_partitioned,
    rolora,
    weave,
)
from aggregator.merge.state import AdapterState
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits
from wire.fields import Dtype
from wire.messages import AdapterPart


class Total(Protocol):
    """The running sums of a round, while updates arrive. Nobody but the rule looks further into them."""

    @property
    def n_updates(self) -> int:
        """How many boards were folded."""

    def compacted(self) -> Total:
        """The same sums, those of one weight in less memory; itself where none takes more than it should.

        Whoever folds a round of unknown size takes these steps after every board, until itself comes back, and drops
        the sums before each step: memory is then bounded (`settings.sizes.sums_bytes`), and the sums of one weight
        alone are in it twice.
        """


T = TypeVar("T", bound=Total)


class Rule(Protocol[T]):
    """A module that defines these functions, all pure: no argument changes, equal arguments give equal results.

    The server asks nothing else of a rule. A restart folds a round's updates again, so `fold` must give the same bits
    for the same updates in the same order.
    """

    @property
    def TRAITS(self) -> Traits:
        """The facts that boards and the rest of the server must know of the rule."""

    def first_basis(self, state: AdapterState, total: T, *, max_rank: int, seed: int) -> AdapterState:
        """Version 1, from version 0 and the profiles that were folded. Where these have scores, every weight keeps its
        own in `WeightState.score`, and `values` follow it in this version and in each that has new sketches."""

    def cut(self, state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
        """The parts of a version that a board which trains at these ranks (manifest order) is sent. Where every rank is
        0, that is the whole global adapter, frozen, to evaluate."""

    def fold(self, total: T | None, added: Contribution) -> T:
        """The sums of a round, or of the profiles, with one more accepted board; None before the first. Multiplies no
        matrices: an upload is answered after it."""

    def merge(self, state: AdapterState, total: T, settings: MergeSettings) -> AdapterState:
        """The next version. Raises ValueError or LinAlgError where there is none, which abandons the round."""


def folded(rule: Rule[Any], boards: Iterable[Contribution]) -> Any:
    """The sums of boards one after the other, in bounded memory; None of no board."""
    total: Total | None = None
    for board in boards:
        total = rule.fold(total, board)
        while (after := total.compacted()) is not total:
            total = after
    return total


RULES: Mapping[str, Rule[Any]] = MappingProxyType(
    {
        "fedsvd": fedsvd,
        "weave": weave,
        "braid": braid,
        "fresh": fresh,
        "delta": delta,
        "flexlora": flexlora,
        "flora": fresh,  # FLoRA (arXiv 2409.05976) is fresh with eta 1 and no optimiser: a stack is a sum of products
        "hetlora": hetlora,
        "fedavg": fedavg,
        "rank-partitioned": rank_partitioned,
        "fed-plora": fed_plora,
        "ffa": ffa,
        "rolora": rolora,
    }
)
"""By their names in run.toml (`merge.rule`)."""
