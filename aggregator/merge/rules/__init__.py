"""What a merge rule is, and which there are: one file each, and one line in `RULES`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from aggregator.merge.rules import (
    braid,
    delta,
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
from wire.messages import AdapterPart, Dtype


class Total(Protocol):
    """What a rule keeps of a round while updates arrive. Nobody but the rule looks further into it."""

    @property
    def n_updates(self) -> int: ...

    def compacted(self) -> Total:
        """The same sums, those of one weight in less memory; itself where none takes more than it should.

        Whoever folds a round of unknown size takes these steps after every board, to the end, and drops before each
        what it held: memory is then bounded (`sizes.sums_bytes`), and the sums of one weight alone are in it twice.
        """


T = TypeVar("T", bound=Total)


class Rule(Protocol[T]):
    """A module that defines these functions, all pure: no argument changes, equal arguments give equal results.

    The server asks nothing else of a rule. A restart folds a round's updates again, so `fold` must give the same bits
    for the same updates in the same order.
    """

    @property
    def TRAITS(self) -> Traits:
        """What boards and the rest of the server must know of the rule."""

    def first_basis(self, state: AdapterState, total: T, *, max_rank: int, seed: int) -> AdapterState:
        """Version 1, from version 0 and the profiles that were folded. Where these have scores, every weight keeps its
        own in `WeightState.score`, and `values` follow it in this version and in each that has new sketches."""

    def cut(self, state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
        """Open a round: what a board that trains at these ranks (manifest order) is sent of a version. Where every rank
        is 0, that is the whole global adapter as context, to evaluate."""

    def fold(self, total: T | None, added: Contribution) -> T:
        """A round, or the profiles, with one more accepted board; None before the first. Costs no product."""

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
        "weave": weave,
        "braid": braid,
        "fresh": fresh,
        "delta": delta,
        "flexlora": flexlora,
        "flora": fresh,  # FLoRA (arXiv 2409.05976) is fresh with eta 1 and no optimiser: a stack is a sum of products
        "hetlora": hetlora,
        "fedavg": fedavg,
        "rank-partitioned": rank_partitioned,
        "ffa": ffa,
        "fedsvd": fedsvd,
        "rolora": rolora,
    }
)
"""By their names in run.toml (`merge.rule`)."""
