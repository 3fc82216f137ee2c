"""A server beside nuisances: how long honest boards wait, and what the server holds during and after.

    python -m benchmarks.load                          # all of them, 10 s each
    python -m benchmarks.load --quick --only silent junk
    python -m benchmarks.load --json load.json

The server, the nuisance and the honest boards are processes of their own on this machine, over the loopback address,
so that all three share the address: the worst case of a fleet behind one router. The nuisance has the lowest priority,
for it would come from other machines; it takes what processor time is left. Eight boards poll ten times a second on
connections that stay open, and one calls anew four times a second. "after" is the memory once the nuisance has been
gone for `--rest` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load.honest import Seen, enrol, poll, profile
from benchmarks.load.nuisances import NUISANCES, OF_A_DEVICE
from benchmarks.load.server import Cost, ServerProcess
from braid_common.units import show_size
from edge_client.host.machine import describe_machine

BOARDS = 8

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
    "errors",
    "peak MiB",
    "after",
    "log",
)


def main() -> None:
    options = _options()
    print(f"{describe_machine()}, {options.seconds:g} s each\n", flush=True)
    print("| " + " | ".join(HEADS) + " |\n|" + " --- |" * len(HEADS), flush=True)
    rows = []
    for name in ["nobody", *options.only]:
        row = _measure(name, options.seconds, options.rest)
        rows.append(row)
        print("| " + " | ".join(_cells(row)) + " |", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2))


def _measure(name: str, seconds: float, rest_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "run", SETTINGS) as server:
        seen = asyncio.run(_bother(server, name, seconds))
        time.sleep(rest_s)
        return _row(name, seen, server.cost(), server.is_up)


async def _bother(server: ServerProcess, name: str, seconds: float) -> Seen:
    """Times of honest boards beside one nuisance."""
    boards = [await enrol(server.url, server.token, number) for number in range(BOARDS + 1)]
    await profile(server.url, boards[0])
    *credentials, bad = [board.credential for board in boards]
    command = [sys.executable, "-m", "benchmarks.load.nuisances", name, server.host, str(server.port)]
    command += ["--seconds", str(seconds), *(["--credential", bad] if name in OF_A_DEVICE else [])]
    nuisance = None
    if name != "nobody":
        nuisance = await asyncio.create_subprocess_exec(*command, stdout=-3, preexec_fn=partial(os.nice, 19))
    seen = await poll(server.url, credentials, seconds)
    if nuisance is not None:
        await nuisance.wait()
    return seen


def _row(name: str, seen: Seen, cost: Cost, is_up: bool) -> dict[str, Any]:
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
        "log_bytes": cost.log_bytes,
        "is_up": is_up,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    times = ("poll_p50_s", "poll_p99_s", "poll_longest_s", "fresh_p99_s", "fresh_longest_s")
    return [
        row["nuisance"] + ("" if row["is_up"] else " (the server ended)"),
        *(f"{1000 * row[key]:,.0f}" for key in times),
        f"{row['errors']} of {row['polls'] + row['fresh'] + row['errors']}",
        f"{row['peak_mib']:,.0f}",
        f"{row['resident_mib']:,.0f}",
        show_size(row["log_bytes"]),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(NUISANCES), choices=NUISANCES, metavar="NUISANCE")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each nuisance")
    parser.add_argument("--rest", type=float, default=3.0, help="seconds from its end to the last look at memory")
    parser.add_argument("--quick", action="store_true", help="3 s each, to see that it works")
    parser.add_argument("--json", default="", help="file for the numbers")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rest = 3.0, 1.0
    return options


if __name__ == "__main__":
    main()
