"""Processes that are kept: started again whenever they end, until their work is done."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from chaos.fleet.process import KeptProcess

COUNTING = """
import os, pathlib, signal, sys
log = pathlib.Path(sys.argv[1])
n = len(log.read_text()) if log.exists() else 0
log.write_text("x" * (n + 1))
if n == 0:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(3 if n == 1 else 0)
"""


async def test_it_is_started_until_it_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", COUNTING, str(tmp_path / "count")]
    kept = KeptProcess("one", command, {}, tmp_path / "log")

    await asyncio.wait_for(kept.keep(), 30)

    assert kept.ends == {-9: 1, 3: 1, 0: 1}


async def test_it_is_started_no_more_once_it_is_stopped(tmp_path: Path) -> None:
    """A kill is answered with another start, a stop is not."""
    script = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).open('a').write('x'); time.sleep(60)"
    started = tmp_path / "started"
    kept = KeptProcess("one", [sys.executable, "-I", "-S", "-c", script, str(started)], {}, tmp_path / "log")
    keeping = asyncio.ensure_future(kept.keep())

    async def until(n: int) -> None:
        while not started.exists() or len(started.read_text()) < n:  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.01)

    await asyncio.wait_for(until(1), 30)
    kept.kill()
    await asyncio.wait_for(until(2), 30)
    await kept.stop()
    await asyncio.wait_for(keeping, 30)

    assert kept.ends == {-9: 1, -15: 1}
    assert started.read_text() == "xx"
