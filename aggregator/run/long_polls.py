"""Long polls: boards that wait for work, each answered as soon as there is some for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from aggregator.run.broadcast import Broadcast, wait_for_event
from aggregator.run.fleet import Board
from wire.limits import MAX_LONG_POLL_S
from wire.messages import Task

MAX_POLLS = 4
"""Long polls that one board may have open: one, and those of connections that broke without a word."""

TOO_MANY_POLLS_S = 5.0
"""When a board with too many is told to ask again."""


class LongPolls:
    """The long polls of one run.

    Args:
        task: what a board should do now, by device, the last round that it knows of, and the epoch in which it did.
        longest_s: no poll waits longer, nor longer than MAX_LONG_POLL_S.
    """

    def __init__(self, task: Callable[[str, int, str], Task], longest_s: float) -> None:
        self._task = task
        self._longest_s = min(longest_s, MAX_LONG_POLL_S)
        self._news = Broadcast()
        self._is_stopping = False

    def look_again(self) -> None:
        """There may be work for those who wait."""
        self._news.send()

    def stop(self) -> None:
        """Answer all polls now, and later ones at once: a server that stops must not wait for them."""
        self._is_stopping = True
        self._news.send()

    async def next_task(self, board: Board, after: int, wait_s: float, epoch: str = "") -> Task:
        """The board's task, but up to `wait_s` later if there is nothing to do yet."""
        if board.polls >= MAX_POLLS:
            task = self._task(board.device, after, epoch)
            return replace(task, retry_after_s=TOO_MANY_POLLS_S) if task.kind == "wait" else task
        until = asyncio.get_running_loop().time() + min(wait_s, self._longest_s)
        board.polls += 1
        try:
            while True:
                news, task = self._news.next_event(), self._task(board.device, after, epoch)
                left_s = until - asyncio.get_running_loop().time()
                if task.kind != "wait" or left_s <= 0 or self._is_stopping:
                    return task
                await wait_for_event(news, left_s)
        finally:
            board.polls -= 1
