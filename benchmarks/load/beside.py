"""A server beside nuisances: how long honest boards wait, and what the server holds during and after.

The server, the nuisance and the honest boards are processes of their own on this machine, over the loopback address,
so that all three share the address: the worst case of a fleet behind one router. The nuisance has the lowest priority,
for it would come from other machines; it takes what processor time is left. Eight boards poll ten times a second on
connections that stay open, and one calls anew four times a second. "after" is the memory once the nuisance has been
gone for `--rest` seconds. The control of each nuisance is the same one at a port of its own process: the honest boards
then share the machine with it, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load.honest import Seen, enrol, poll, profile
from benchmarks.load.nuisances import NOT_ELSEWHERE, OF_A_DEVICE
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.unit import descriptors
from braid_common.units import show_size

BOARDS = 8

DESCRIPTORS = 1024
"""systemd's default soft limit, under which a service starts that says nothing else."""

SETTINGS = {
    "rounds.min_devices": "1",
    "rounds.quorum": "1",
    "train.importance": "sketch",
    "train.max_source_tokens": "192",
    "train.max_target_tokens": "32",
}
"""A run whose first round is open, and stays so: no board sends an update."""

HEADS = (
    "nuisance",
    "poll p50 ms",
    "p99",
    "longest",
    "new call p99 ms",
    "longest",
    "longest turn CPU ms",
    "errors",
    "peak MiB",
    "after",
    "log",
)


def measure_beside(
    names: Sequence[str], seconds: float, rest_s: float, *, has_control: bool = False
) -> list[dict[str, Any]]:
    """A row for a server that nobody bothers, and one for each nuisance, printed as they come; behind it one for its
    control, where there is one.

    `seconds` is how long each goes on, `rest_s` the time from its end to the last look at the server's memory.
    """
    print("| " + " | ".join(HEADS) + " |\n|" + " --- |" * len(HEADS), flush=True)
    rows = []
    for name in ["nobody", *names]:
        controls = [False, True] if has_control and name not in {"nobody", *NOT_ELSEWHERE} else [False]
        for is_elsewhere in controls:
            rows.append(_measure(name, seconds, rest_s, is_elsewhere))
            print("| " + " | ".join(_cells(rows[-1])) + " |", flush=True)
    return rows


def _measure(name: str, seconds: float, rest_s: float, is_elsewhere: bool) -> dict[str, Any]:
    limits = descriptors(DESCRIPTORS)
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder) / "run", SETTINGS, limits, is_timed=True) as server,
    ):
        seen = asyncio.run(_bother(server, name, seconds, is_elsewhere))
        time.sleep(rest_s)
        row = _row(f"{name}, elsewhere" if is_elsewhere else name, seen, server)
        server.stop()
        return row | {"longest_turn_s": server.longest_turn_s(seen.began_s, seen.ended_s)}


async def _bother(server: ServerProcess, name: str, seconds: float, is_elsewhere: bool) -> Seen:
    """Times of honest boards beside one nuisance."""
    token = server.token(BOARDS + 1)
    boards = [await enrol(server.url, token, number) for number in range(BOARDS + 1)]
    await profile(server.url, boards[0])
    *credentials, bad = [board.credential for board in boards]
    command = [sys.executable, "-m", "benchmarks.load.nuisances", name, server.host, str(server.port)]
    command += ["--seconds", str(seconds), *(["--credential", bad] if name in OF_A_DEVICE else [])]
    command += ["--elsewhere"] if is_elsewhere else []
    nuisance = None
    if name != "nobody":
        nuisance = await asyncio.create_subprocess_exec(*command, stdout=-3, preexec_fn=partial(os.nice, 19))
    seen = await poll(server.url, credentials, seconds)
    if nuisance is not None:
        await nuisance.wait()
    return seen


def _row(name: str, seen: Seen, server: ServerProcess) -> dict[str, Any]:
    cost = server.cost()
    return {
        "nuisance": name,
        "polls": len(seen.polls.seconds),
        "poll_p50_s": seen.polls.median,
        "poll_p99_s": seen.polls.percentile(99),
        "poll_longest_s": seen.polls.longest,
        "fresh": len(seen.fresh.seconds),
        "fresh_p99_s": seen.fresh.percentile(99),
        "fresh_longest_s": seen.fresh.longest,
        "errors": seen.polls.errors + seen.fresh.errors,
        "peak_mib": cost.peak_mib,
        "resident_mib": cost.resident_mib,
        "cpu_s": cost.cpu_s,
        "log_bytes": server.log_bytes,
        "is_up": server.is_up,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    times = ("poll_p50_s", "poll_p99_s", "poll_longest_s", "fresh_p99_s", "fresh_longest_s", "longest_turn_s")
    return [
        row["nuisance"] + ("" if row["is_up"] else " (the server ended)"),
        *(f"{1000 * row[key]:,.0f}" for key in times),
        f"{row['errors']} of {row['polls'] + row['fresh'] + row['errors']}",
        f"{row['peak_mib']:,.0f}",
        f"{row['resident_mib']:,.0f}",
        show_size(row["log_bytes"]),
    ]
