"""A merge rule behind a defence: to the server it is a rule like the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from aggregator.merge.defences import geometric_median, median, multi_krum, norm_clip, trimmed_mean
from aggregator.merge.defences.bounds import MAX_WEIGHT, bounded
from aggregator.merge.defences.defence import Defence, Filtered
from aggregator.merge.rules import Rule, Total, folded
from aggregator.merge.state import AdapterState
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits
from wire.fields import Dtype
from wire.messages import AdapterPart

NONE = "none"
"""The name of no defence in run.toml."""

DEFENCES: Mapping[str, Defence] = MappingProxyType(
    {
        "norm-clip": norm_clip,
        "multi-krum": multi_krum,
        "geometric-median": geometric_median,
        "trimmed-mean": trimmed_mean,
        "median": median,
    }
)
"""By their names in run.toml (`merge.defence`)."""

UNWEIGHTED = frozenset({"trimmed-mean", "median"})
"""The defences to which all boards count alike, whatever their weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The contributions of a round, in order of arrival.

    A defence compares boards, so nothing can be summed before the round closes: memory grows with the cohort, by what
    each board trained and sketched in float32 (at most `Terms.largest_upload_bytes` a board, and its start where the
    rule has one).
    """

    boards: tuple[Contribution, ...] = ()

    @property
    def n_updates(self) -> int:
        return len(self.boards)

    def compacted(self) -> Kept:
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Defended:
    """Satisfies `Rule[Kept]`. Which of a round's contributions the rule is given, and at what weight, is decided when
    the round closes."""

    rule: Rule[Any]
    defence: Defence
    attackers: float
    max_weight: float = MAX_WEIGHT

    @property
    def TRAITS(self) -> Traits:
        return self.rule.TRAITS

    def first_basis(self, state: AdapterState, total: Kept, *, max_rank: int, seed: int) -> AdapterState:
        return self.rule.first_basis(state, self._total(total), max_rank=max_rank, seed=seed)

    def cut(self, state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
        return self.rule.cut(state, ranks, dtype)

    def fold(self, total: Kept | None, added: Contribution) -> Kept:
        return Kept((*total.boards, added) if total else (added,))

    def merge(self, state: AdapterState, total: Kept, settings: MergeSettings) -> AdapterState:
        return self.rule.merge(state, self._total(total), settings)

    def filtered(self, total: Kept) -> Filtered:
        """The boards that the rule is given, and how much is left of each one's influence. Profiles train nothing: what
        they claim is bounded, and that is all."""
        boards = bounded(total.boards, self.max_weight)
        if not any(board.strands for board in boards):
            return Filtered(boards, (1.0,) * len(boards))
        return self.defence.filtered(boards, self.TRAITS, self.attackers)

    def _total(self, kept: Kept) -> Total:
        total: Total | None = folded(self.rule, self.filtered(kept).boards)
        if total is None:
            raise ValueError("a round without updates cannot be merged")
        return total


def defended(rule: Rule[Any], name: str, attackers: float, max_weight: float = MAX_WEIGHT) -> Rule[Any]:
    """The rule behind the defence of this name; the rule itself where that is "none"."""
    return rule if name == NONE else Defended(rule, DEFENCES[name], attackers, max_weight)
