"""Work that is cut short once the server has gone on without it, or the board has to do without for longer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from edge_client.agent.manners.pauses import Pauses
from edge_client.agent.relevance import is_wanted
from edge_client.network.api import Api
from edge_client.network.retry import MAX_RETRY_AFTER_S
from wire.messages import Task

T = TypeVar("T")

WATCH_EVERY_S = 15.0
"""While the worker works, how often to ask whether the round is still open: at most this much work is wasted."""


SOONEST_S = 1.0
"""Least time between two polls that brought nothing new: a server that answers at once must not be flooded."""


def pause_s(task: Task) -> float:
    """Seconds to wait before the server is asked again, when it has told a board to wait."""
    return min(max(task.retry_after_s, SOONEST_S), MAX_RETRY_AFTER_S)


class TaskOver(Exception):
    """The server has gone on without this board's part: drop the work and ask again."""


class Watch:
    """Asks the server every `every_s` whether it still waits for a task's result, and holds the work up while the
    board may not train; without `pauses` it always may."""

    def __init__(self, api: Api, every_s: float = WATCH_EVERY_S, pauses: Pauses | None = None) -> None:
        self._api, self._every_s, self._pauses = api, every_s, pauses

    async def while_wanted(self, task: Task, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises TaskOver once the server no longer waits for it, Away where the board may not
        train for longer, and what `work` raises."""
        return await self._watched(work, self._until_over(task))

    async def to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` that no server waits for; it is told meanwhile that the board is there. Raises Away as
        `while_wanted`, and what `work` raises."""
        return await self._watched(work, self._call())

    async def _watched(self, work: Coroutine[Any, Any, T], watch: Coroutine[Any, Any, None]) -> T:
        working = asyncio.ensure_future(work)
        watching = [asyncio.ensure_future(watch)]
        if self._pauses is not None:
            watching.append(asyncio.ensure_future(self._pauses.until_away()))
        try:
            await asyncio.wait({working, *watching}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                next(future for future in watching if future.done()).result()  # raises TaskOver, RevokedError or Away
            return await working
        finally:
            for future in (working, *watching):
                future.cancel()
            await asyncio.gather(working, *watching, return_exceptions=True)

    async def _call(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._api.work(after=-1, wait_s=0)

    async def _until_over(self, task: Task) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            now = await self._api.work(after=-1, wait_s=0)
            if not is_wanted(task, now):
                raise TaskOver(f"the server is at round {now.spec.round}, version {now.spec.version}")
