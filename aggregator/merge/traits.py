"""The traits of a merge rule: what boards that train for it must know, and whoever screens or combines updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wire.messages import Trains

Space = Literal["basis", "products", "factors"]
"""The space in which a rule averages: B on one shared basis, products B·A, or A and B each for itself."""


@dataclass(frozen=True, slots=True)
class Traits:
    """The facts that distinguish a rule, as far as others need to know.

    Attributes:
        summary: one line for run.toml.
        space: where the rule averages.
        cycle: which factors boards train, round by round, repeated.
        own_basis: each board draws its own A, and is sent none.
        has_start: boards begin at the global adapter, cut to their rank, and not at B = 0.
        is_change: an update says what to add to the global adapter, and so counts though it was trained on an older
            version; otherwise it says what the adapter should be.
        needs_equal_ranks: ranks of one weight may not differ between boards; run.toml must set train.rank.
        prunes: boards give up trailing strands that training shrinks.
        sketches: the gradient sketches of a round make the next basis; other rules need those of the profiles alone.
        sums_by_rank: products are summed for every rank index by itself, which takes memory.
    """

    summary: str
    space: Space
    cycle: tuple[Trains, ...] = ("b",)
    own_basis: bool = False
    has_start: bool = False
    is_change: bool = True
    needs_equal_ranks: bool = False
    prunes: bool = False
    sketches: bool = False
    sums_by_rank: bool = False

    @property
    def trains_a(self) -> bool:
        """Whether any round trains A."""
        return self.cycle != ("b",)

    def trains(self, version: int) -> Trains:
        """The factors that a round on this version trains. The first round is on version 1."""
        return self.cycle[(version - 1) % len(self.cycle)]
