"""The contract of a defence: it sees all boards of a round at once, and filters what the merge rule is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aggregator.merge.sums import Contribution
from aggregator.merge.traits import Traits


@dataclass(frozen=True, slots=True)
class Filtered:
    """`boards`: what the merge rule is given instead of the round's contributions. `trust`: how much is left of each
    board's influence, in order of arrival: 1 all of it, 0 none."""

    boards: tuple[Contribution, ...]
    trust: tuple[float, ...]


class Defence(Protocol):
    """A module that defines these. All pure: no argument changes, equal arguments give equal results."""

    @property
    def SUMMARY(self) -> str:
        """One line for run.toml."""

    @property
    def MIN_BOARDS(self) -> int:
        """The fewest boards among which it can tell a bad one from the others."""

    def fits(self, traits: Traits) -> bool:
        """Whether it can defend a merge rule of these traits."""

    def filtered(self, boards: Sequence[Contribution], traits: Traits, attackers: float) -> Filtered:
        """The boards to merge in place of these, of which at least one trained something.

        `traits`: of the merge rule; `attackers`: the share of boards that may be bad, below a half.
        """


def any_rule(traits: Traits) -> bool:
    """`fits` of a defence for any rule, since boards are only weighed or drawn back, and keep their factors."""
    return True


def assumed_bad(n_boards: int, attackers: float) -> int:
    """How many of the boards may be bad: the share of them, but one at least."""
    return max(1, int(attackers * n_boards + 1e-9))  # 0.29 · 100 is a little less than 29
