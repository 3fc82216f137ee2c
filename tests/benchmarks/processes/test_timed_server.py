"""The clock at a server's event loop notes its long turns, and no others."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from benchmarks.processes.timed_server import LONG_S, TimedSelector, longest_s


def work(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_a_turn_that_works_is_noted_and_one_that_sleeps_is_not(tmp_path: Path) -> None:
    selector = TimedSelector()

    async def turns() -> None:
        await asyncio.sleep(0.01)
        selector.turns.clear()  # those of the beginning
        work(3 * LONG_S)
        await asyncio.sleep(0.01)
        time.sleep(3 * LONG_S)  # noqa: ASYNC251 - takes no processor time
        await asyncio.sleep(0.01)

    loop = asyncio.SelectorEventLoop(selector)
    try:
        loop.run_until_complete(turns())
    finally:
        loop.close()

    assert [took_s >= 3 * LONG_S for _, took_s in selector.turns] == [True]
    path = tmp_path / "turns.json"
    path.write_text(json.dumps(selector.turns))
    ((at_s, took_s),) = selector.turns
    assert longest_s(path, at_s - 1, at_s) == took_s
    assert longest_s(path, at_s + 1, at_s + 2) == 0
