"""Retries of failed calls: full jitter, honoured Retry-After, a budget that progress renews.

Only `Unavailable` is ever retried, and only calls that are safe to repeat (all of ours are: see wire/messages.py).
Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: full jitter spreads a fleet that lost its server
together, where plain exponential steps would bring it back together.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from edge_client.network.errors import Unavailable

T = TypeVar("T")

FIRST_DELAY_S = 0.5
"""Upper bound of the first pause; a dropped packet should cost no more."""

MAX_DELAY_S = 60.0
"""Upper bound of a pause that we choose: a server that is back sees its boards within a minute."""

MAX_RETRY_AFTER_S = 600.0
"""Longest pause that a server may ask for; a header of years would take the board out of the fleet."""


class Backoff:
    """The pauses of one call. `attempts` and `total_s` None mean no end: an enrolled board never gives up."""

    def __init__(
        self,
        *,
        attempts: int | None = None,
        total_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._attempts, self._total_s = attempts, total_s
        self._clock, self._sleep, self._uniform = clock, sleep, uniform
        self.progressed()

    def progressed(self) -> None:
        """Renew the budget: bytes moved, or an answer came."""
        self._failures = 0
        self._since = self._clock()

    async def pause(self, error: Unavailable) -> None:
        """Wait before the next try, or raise `error` where the budget is spent."""
        self._failures += 1
        delay_s = self._delay_s(error.retry_after_s)
        if self._attempts is not None and self._failures >= self._attempts:
            raise error
        if self._total_s is not None and self._clock() - self._since + delay_s > self._total_s:
            raise error
        await self._sleep(delay_s)

    def _delay_s(self, retry_after_s: float) -> float:
        doublings = min(self._failures - 1, 16)  # 2**16 × 0.5 s is far over the cap; larger powers only overflow
        jitter_s = self._uniform(0.0, min(MAX_DELAY_S, FIRST_DELAY_S * 2.0**doublings))
        return min(retry_after_s, MAX_RETRY_AFTER_S) + jitter_s


async def retry(
    call: Callable[[], Awaitable[T]],
    backoff: Backoff,
    *,
    on_failure: Callable[[Unavailable], None] = lambda _: None,
) -> T:
    """`call` until it succeeds. Raises the last Unavailable where the budget is spent, any other error at once."""
    while True:
        try:
            result = await call()
        except Unavailable as error:
            on_failure(error)
            await backoff.pause(error)
        else:
            backoff.progressed()
            return result
