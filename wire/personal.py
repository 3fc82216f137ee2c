"""Local strands as a run or a board asks for them: LoRA pairs of one board alone, on top of the global adapter.

They are trained on the board's text and never sent (PFTT, arXiv 2404.13238: global adapters that are aggregated beside
a local LoRA that is not). No field of an update, a profile or a report can hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from wire.fields import Message, NonNegative
from wire.limits import MAX_RANK

if TYPE_CHECKING:
    from wire.run import Weight

Target = Literal["q", "k", "v", "o", "wi_0", "wi_1", "wo"]
"""The last part of a weight's name."""

When = Literal["beside", "after"]


class Personal(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The local strands that every board is asked to have, or that one board has of its own accord."""

    rank: Annotated[int, Meta(ge=0, le=MAX_RANK)]  # local strands of a weight; 0: this board has none
    targets: Annotated[tuple[Target, ...], Meta(max_length=7)] = ()  # weights that have them; none named: all trained
    learning_rate: NonNegative = 0.0  # 0: that of the global strands
    when: When = "beside"  # trained in the steps of the global strands, or after these in steps of their own
    steps: Annotated[int, Meta(ge=0, le=100_000)] = 0  # of their own, a round; 0: as many as the global strands have

    def ranks(self, weights: Sequence[Weight]) -> tuple[int, ...]:
        """Local strands of each of these weights."""
        return tuple(
            min(self.rank, weight.rows, weight.columns)
            if not self.targets or weight.name.rsplit(".", 1)[-1] in self.targets
            else 0
            for weight in weights
        )
