"""Late updates: which closed rounds they still count for, and how much less they weigh in the round that is open then.

Source: FedBuff (arXiv 2106.06639), whose polynomial staleness weight is FedAsync's (arXiv 1903.03934). An update is
read against the version that it was trained on, so what it says to change stays what the board meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from wire.messages import RoundSpec


@dataclass(frozen=True, slots=True)
class LateRounds:
    """The rounds that are closed and whose updates still count. Immutable; each step returns the next.

    `limit`: versions that such an update may be behind; 0: late updates do not count.
    """

    limit: int
    rounds: Mapping[int, RoundSpec] = field(default_factory=dict)

    def with_closed(self, spec: RoundSpec, newest: int) -> LateRounds:
        """The rounds with one more, now that `newest` is the newest version; without those too far behind it."""
        if not self.limit:
            return self
        rounds = {**self.rounds, spec.round: spec}
        kept = {number: each for number, each in rounds.items() if newest - each.version <= self.limit}
        return replace(self, rounds=MappingProxyType(kept))


def staleness_weight(staleness: int, power: float) -> float:
    """(1 + staleness)^−power: 1 for an update of the newest version, less the more versions it is behind."""
    return float((1 + staleness) ** -power)
