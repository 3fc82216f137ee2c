"""Token buckets: how often somebody may do something, on average and at once. Pure: times are arguments."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_KEYS = 20_000
"""Buckets of one kind in memory, twice as many as there may be devices. Beyond, the one unused for longest is
forgotten, which fills it: whoever has so many addresses is not held back by limits on one."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So much per second on average, and `burst` at once."""

    per_s: float
    burst: float


class Buckets:
    """A bucket for each key, full at first, that what is done empties and time fills."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level and when; least recently used first

    def wait_s(self, key: str, now: float, amount: float = 1.0) -> float:
        """Seconds until the bucket holds `amount`; 0 where it does now. With amount 0: until it is in debt no more."""
        return max(0.0, (amount - self._level(key, now)) / self._rate.per_s)

    def spend(self, key: str, now: float, amount: float = 1.0) -> None:
        """Take `amount`, known only once it has been used: the bucket may go into debt, of a burst at most."""
        level = max(self._level(key, now) - amount, -self._rate.burst)
        self._levels[key] = (level, now)
        self._levels.move_to_end(key)
        if len(self._levels) > MAX_KEYS:
            self._levels.popitem(last=False)

    def take(self, key: str, now: float) -> float:
        """Take one where there is one, and give 0; else the seconds until there is."""
        wait_s = self.wait_s(key, now)
        if not wait_s:
            self.spend(key, now)
        return wait_s

    def _level(self, key: str, now: float) -> float:
        level, at = self._levels.get(key, (self._rate.burst, now))
        return min(self._rate.burst, level + max(0.0, now - at) * self._rate.per_s)
