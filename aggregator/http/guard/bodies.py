"""The pace of a body: the least that has to come, and how long is waited for it. Pure: times are arguments."""

from __future__ import annotations

BLOCK_BYTES = 32 * 1024
"""So much of a body has to come within BLOCK_S, or all the rest of it."""

BLOCK_S = 30.0
"""A kilobyte a second: a tenth of what the slowest link carries on which a round is worth its traffic."""


class Pace:
    """The pace of one body. `until_s`: when it is given up, unless a block is whole by then."""

    def __init__(self, now: float, block_s: float = BLOCK_S) -> None:
        self._block_s = block_s
        self._begin(now)

    def take(self, size_bytes: int, now: float) -> None:
        """Count bytes that came."""
        self._came_bytes += size_bytes
        if self._came_bytes >= BLOCK_BYTES:
            self._begin(now)

    def _begin(self, now: float) -> None:
        self._came_bytes, self.until_s = 0, now + self._block_s
