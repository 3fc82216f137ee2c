"""Turns: of the calls that have come from one source at once, a few are begun in each turn of the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

AT_ONCE = 4
"""Calls of one source that are begun in a turn. A hundred that come together hold others up for a tenth of a second;
four for some milliseconds, and what they wait themselves is what they would have waited for one another anyway."""


class Turns:
    """The calls that wait for their turn, those of each source in the order in which they came."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._begun: Counter[str] = Counter()  # in this turn
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, source: str) -> None:
        """Return when a call of this source is to be begun: at once where no crowd of its own is before it."""
        if source not in self._waiting and self._begun[source] < self._at_once:
            self._begin(source)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(source, deque()).append(turn)
        await turn

    def _begin(self, source: str) -> None:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next)
        self._begun[source] += 1

    def _next(self) -> None:
        """A turn is over: the first of each source are begun in the next one."""
        self._begun.clear()
        for source, waiting in list(self._waiting.items()):
            while waiting and self._begun[source] < self._at_once:
                turn = waiting.popleft()
                if not turn.done():  # cancelled with its call
                    turn.set_result(None)
                    self._begin(source)
            if not waiting:
                del self._waiting[source]
