"""Pauses: jittered, bounded, as long as the server asks, and renewed by progress."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.network.errors import Unavailable
from edge_client.network.retry import FIRST_DELAY_S, MAX_DELAY_S, MAX_RETRY_AFTER_S, Backoff, retry


def recording(**arguments: Any) -> tuple[Backoff, list[float]]:
    """A Backoff that draws the longest jitter and sleeps at once."""
    slept_s: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept_s.append(delay_s)

    return Backoff(sleep=sleep, uniform=lambda low, high: high, **arguments), slept_s


async def test_pauses_double_up_to_the_cap() -> None:
    """0.5, 1, 2 … 60, 60 seconds at most."""
    backoff, slept_s = recording()
    for _ in range(12):
        await backoff.pause(Unavailable("away"))

    assert slept_s[:3] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert slept_s[-1] == MAX_DELAY_S


@given(st.floats(0, 1e9), st.integers(1, 200))
async def test_no_pause_is_longer_than_its_bounds(retry_after_s: float, failures: int) -> None:
    """Whatever a server asks for."""
    backoff, slept_s = recording()
    for _ in range(failures):
        await backoff.pause(Unavailable("away", retry_after_s=retry_after_s))

    assert max(slept_s) <= MAX_RETRY_AFTER_S + MAX_DELAY_S
    assert min(slept_s) >= min(retry_after_s, MAX_RETRY_AFTER_S)


async def test_attempts_are_bounded_and_progress_renews_them() -> None:
    """The last error is raised when the budget is spent."""
    backoff, slept_s = recording(attempts=3)
    for _ in range(2):
        await backoff.pause(Unavailable("away"))
    backoff.progressed()
    for _ in range(2):
        await backoff.pause(Unavailable("away"))

    with pytest.raises(Unavailable, match="the last"):
        await backoff.pause(Unavailable("the last"))
    assert len(slept_s) == 4


async def test_the_whole_time_is_bounded() -> None:
    """No pause is begun that would end after `total_s`."""
    backoff, slept_s = recording(total_s=2.0, clock=lambda: sum(slept_s_of[0]))
    slept_s_of[0] = slept_s

    with pytest.raises(Unavailable):
        for _ in range(10):
            await backoff.pause(Unavailable("away"))

    assert sum(slept_s) <= 2.0


slept_s_of: list[list[float]] = [[]]


async def test_only_unavailable_is_retried() -> None:
    """Any other error ends the call at once."""
    calls = []

    async def call() -> None:
        calls.append(None)
        raise KeyError

    backoff, _ = recording()
    with pytest.raises(KeyError):
        await retry(call, backoff)
    assert len(calls) == 1
