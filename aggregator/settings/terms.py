"""Settings that cannot change once a run has boards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from aggregator.merge.rules import Rule
from aggregator.settings.sizes import update_bytes
from wire.checks import basis_rank
from wire.fields import Dtype
from wire.limits import MAX_MESSAGE_BYTES
from wire.run import Importance, Weight


@dataclass(frozen=True, slots=True)
class Terms:
    """Satisfies `wire.checks.Agreed`. `importance`: what ranks weights; `rule`: how updates become the next version;
    `download`: number format of what boards are sent; `rank`: that of every weight in an update, 0: boards choose;
    `upload`: of what boards send; `farthest`: that a value can be from where a round's training began."""

    run_id: str
    weights: tuple[Weight, ...]
    manifest: str
    max_rank: int
    server_rank: int
    importance: Importance
    rule: Rule[Any]
    download: Dtype = "bf16"
    rank: int = 0
    upload: Dtype = "bf16"
    farthest: float = math.inf

    @property
    def ranks(self) -> tuple[int, ...] | None:
        """The rank of every weight (manifest order) on every board; None where boards choose."""
        if not self.rank:
            return None
        return tuple(min(self.rank, basis_rank(weight, self.max_rank)) for weight in self.weights)

    @property
    def largest_upload_bytes(self) -> int:
        """More than any honest update of this run has: every factor and every sketch at full rank in fp32."""
        return min(MAX_MESSAGE_BYTES, update_bytes(self.weights, self.max_rank, "fp32", self.rule.TRAITS.trains_a))
