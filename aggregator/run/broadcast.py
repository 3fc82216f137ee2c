"""A signal that any number of coroutines wait for: each sending wakes those that wait then, and no later one."""

from __future__ import annotations

import asyncio


class Broadcast:
    """A signal without a memory: an event that is replaced whenever it is set."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def next_event(self) -> asyncio.Event:
        """The event that the next sending sets. Take it before looking at what may change, so that none is missed."""
        return self._next

    def send(self) -> None:
        """Wake all who wait."""
        self._next.set()
        self._next = asyncio.Event()


async def wait_for_event(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event, for so long at most.

    Not by asyncio.wait_for: before Python 3.12 it forgets that it was cancelled where the event comes at that moment.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=timeout_s)
    finally:
        waiting.cancel()
