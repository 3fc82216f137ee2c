"""A watch over what slows a board down while it trains: heat and its power supply.

Clocks that the kernel holds down make a round take twice as long, and nothing else shows why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edge_client.host.condition.slow_downs import find_slow_downs

LOOK_EVERY_S = 30.0
"""Between two looks at a handful of small files: heat comes and goes in minutes."""

TOLD_EVERY_S = 600.0
"""Least time between two words about the same: a board at its limit is slowed down and let go all the time."""


class SpeedWatch:
    """Tells `told` when this board is slowed down, and by what. Where the board has no files that say so, it reads
    none.

    Args:
        told: gets the reasons, for people.
        root: where /sys is.
        clock: monotonic seconds.
    """

    def __init__(
        self, told: Callable[[str], None], root: Path = Path("/"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._told, self._clock = told, clock
        self._slow_downs = find_slow_downs(root)
        self._looked_s = float("-inf")
        self._told_s: dict[str, float] = {}
        self._counts = self._slow_downs.counts()

    def look(self) -> None:
        """Look, if it is time to."""
        if not self._slow_downs or self._clock() - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = self._clock()
        counts = self._slow_downs.counts()
        grown = [reason for reason, count in counts.items() if count > self._counts.get(reason, 0)]
        self._counts = counts
        new = [reason for reason in dict.fromkeys((*self._slow_downs.now(), *grown)) if self._is_due(reason)]
        if new:
            self._told_s |= dict.fromkeys(new, self._looked_s)
            self._told(", ".join(new))

    def _is_due(self, reason: str) -> bool:
        return self._looked_s - self._told_s.get(reason, float("-inf")) >= TOLD_EVERY_S
