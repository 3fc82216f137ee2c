"""A board of a chaos run: `edge-client join` as it is, with a trivial worker, and pauses sixty times as short.

python -m chaos.fleet.board SERVER TOKEN STATE NAME
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from edge_client.agent.console import Console
from edge_client.agent.join import Surroundings, open_client
from edge_client.agent.preflight import DataSummary, Preflight, Probes, preflight
from edge_client.agent.settings import JoinSettings
from edge_client.errors import ClientError
from edge_client.host.board import Board
from edge_client.network.retry import Backoff
from edge_client.worker.process import WorkerProcess

PACE = 60.0
"""How much faster than in life pauses pass: a board that has lost its server is back within a second, not a minute."""

MEMORY = "2GiB"
"""Enough for any plan. It is given and not measured, so that plans do not depend on what else the machine does."""


async def sleep(delay_s: float) -> None:
    """A pause at the run's pace."""
    await asyncio.sleep(delay_s / PACE)


def backoff(**arguments: Any) -> Backoff:
    """The client's own pauses, at the run's pace."""
    return Backoff(**arguments, sleep=sleep)


def as_it_was() -> Board:
    """The board, when memory is looked at again."""
    return Board(2 << 30, "as it was", 1, "x86_64", False)


async def run(settings: JoinSettings, checked: Preflight, console: Console) -> None:
    """Join, and work until the run is over."""
    worker = WorkerProcess([sys.executable, "-m", "chaos.fleet.worker"])
    surroundings = Surroundings(new_backoff=backoff, sleep=sleep, measure=as_it_was)
    async with open_client(settings, checked, console, worker, surroundings) as client:
        await client.run_to_end()


def main(server: str, token: str, state: str, name: str) -> int:
    """Join as the command does; its exit status."""
    os.environ.pop(
        "LD_PRELOAD", None
    )  # faults are this process's: a killed worker would be taken for one out of memory
    settings = JoinSettings(
        server=server,
        token=token,
        fingerprint="",
        data="data.jsonl",
        model="builtin",
        memory=MEMORY,
        state=Path(state),
        name=name,
        wait=True,
        threads=1,
    )
    console = Console(as_json=True)
    few = DataSummary(10, 2, 0, "")
    probes = Probes(
        measure=lambda folder, threads, say: None,
        packages=lambda: None,
        fork=lambda call, kind: few,  # type: ignore[arg-type]  # the only kind that is asked for
    )
    try:
        asyncio.run(run(settings, preflight(settings, console, probes), console))
    except ClientError as error:
        console.event("error", message=error.message, hint=error.hint, status=int(error.exit_code))
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
