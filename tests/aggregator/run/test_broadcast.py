"""Waiting for an event: it ends with the event, in time, and always where it is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from aggregator.run.broadcast import Broadcast, wait_for_event


async def test_whoever_waits_is_woken_once() -> None:
    signal = Broadcast()
    before = signal.next_event()
    signal.send()
    await asyncio.wait_for(wait_for_event(before, 60.0), 5)
    assert not signal.next_event().is_set()
    await wait_for_event(signal.next_event(), 0.0)


@pytest.mark.parametrize("turns", range(6))
async def test_a_wait_that_is_cancelled_when_the_event_comes_is_cancelled(turns: int) -> None:
    """However many turns of the loop lie between: a server that is told to stop in the instant in which a board enrols
    has to stop. asyncio.wait_for of Python 3.11 and before forgets that it was cancelled."""
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_for_event(event, 60.0))
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    is_over = waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=5)
    assert is_over or waiting.cancelled()
