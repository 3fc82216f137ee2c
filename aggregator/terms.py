"""What a run holds fixed for its whole life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aggregator.merge.rules import Rule
from aggregator.sizes import update_bytes
from wire.limits import MAX_MESSAGE_BYTES
from wire.messages import Importance, Weight


@dataclass(frozen=True, slots=True)
class Terms:
    """Satisfies `wire.checks.Agreed`. `importance`: what ranks weights; `rule`: how updates become the next version."""

    run_id: str
    weights: tuple[Weight, ...]
    manifest: str
    max_rank: int
    server_rank: int
    importance: Importance
    rule: Rule[Any]

    @property
    def largest_upload_bytes(self) -> int:
        """More than any honest update of this run has: every B and every sketch at full rank in fp32."""
        return min(MAX_MESSAGE_BYTES, update_bytes(self.weights, self.max_rank, "fp32"))
