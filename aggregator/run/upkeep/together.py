"""Writes of many boards that go to the disk together.

Each has to be there before its board is answered, and a disk makes a few hundred promises a second, however small they
are. So those that wait for their turn are written in one go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from aggregator.run.upkeep.short_writes import ShortWrites

T = TypeVar("T")


class Together(Generic[T]):
    """Whoever comes while others are written is written with all that come meanwhile, by the first of them.

    Args:
        turns: the lock under which is written.
        write: writes all, or raises and has written none of them. Called again with the same where it was cancelled.
    """

    def __init__(self, turns: ShortWrites, write: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        self._turns, self._write = turns, write
        self._waiting = _Batch[T]()

    async def put(self, item: T) -> None:
        """Return once the item is written. Raises what `write` raises, and DiskError where others before it met one."""
        batch = self._waiting
        batch.items.append(item)
        async with self._turns:
            if batch.is_written:
                return
            if batch is self._waiting:
                self._waiting = _Batch()
            await self._write(batch.items)
            batch.is_written = True


class _Batch(Generic[T]):
    """The items that are written in one go."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self.is_written = False
