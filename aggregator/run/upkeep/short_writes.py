"""A lock for writes that take milliseconds: rows of boards, and files that rows name. Merging does not hold it."""

from __future__ import annotations

import asyncio
from types import TracebackType

from aggregator.errors import DiskError
from aggregator.run.upkeep.trouble import words_of


class ShortWrites:
    """Use as `async with`. First come, first served, so that rows are written in the order of the calls.

    Once the disk or the database has refused a write, those that wait behind it are refused as well: each would wait as
    long, one after the other (a locked database is waited for), and their boards would be gone.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._refusals = 0
        self._words = ""

    async def __aenter__(self) -> None:
        before = self._refusals
        await self._lock.acquire()
        if self._refusals != before:
            self._lock.release()
            raise DiskError(self._words)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (DiskError, OSError)):
            self._refusals, self._words = self._refusals + 1, words_of(error)
        self._lock.release()
