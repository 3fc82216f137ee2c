"""A client and a server that have nothing to do: memory, processor time, and bytes a day.

    python -m benchmarks.idle                        # three polls of a minute each
    python -m benchmarks.idle --polls 10 --json idle.json

A real `aggregator serve` with the limits of the shipped unit, and one real `edge-client join`, which waits for a second
board that never comes: so it asks once a minute. Bytes are those of TCP's stream, TLS included, counted on a relay
between the two; "a day" is what the polls of the window came to, times as many as a day has. Opening the connection,
which happens once, is left out. Memory is resident (RSS), and with pages that are shared counted in parts (PSS).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.idle.line import CountedLine
from benchmarks.processes.client import ClientProcess
from benchmarks.processes.cost import Cost, cost_of
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.unit import unit_limits
from edge_client.host.machine import describe_machine

DAY_S = 24 * 3600.0

SETTINGS = {"rounds.min_devices": "2", "train.max_source_tokens": "32", "train.max_target_tokens": "8"}
"""A run that waits for a second board."""

START_S = 120.0
"""The client probes the board, measures its texts in a worker, and profiles; the worker leaves a minute later."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.idle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--polls", type=int, default=3, help="to measure")
    parser.add_argument("--tls", choices=("self-signed", "off"), default="self-signed", help="of the server")
    parser.add_argument("--json", default="", help="file for the numbers")
    options = parser.parse_args()
    print(f"{describe_machine()}\n", flush=True)
    found = asyncio.run(measure_idle(options.polls, tls=options.tls != "off"))
    print("\n".join(_lines(found)))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2))


async def measure_idle(
    polls: int, *, tls: bool, liveness_s: float = 120.0, without_worker: bool = True
) -> dict[str, Any]:
    """The numbers of so many polls. A poll lasts half of `liveness_s`, and a minute at most. `without_worker`: they
    begin when the client's worker has left, which takes a minute."""
    settings = {**SETTINGS, "rounds.liveness_s": str(liveness_s)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "data.jsonl").write_text("".join(f'{{"source": "text {i}", "target": "{i}"}}\n' for i in range(20)))
        with ServerProcess(folder / "run", settings, unit_limits(), tls=tls) as server:
            async with CountedLine(server.port) as line:
                flags = {
                    "--server": f"{'https' if tls else 'http'}://127.0.0.1:{line.port}",
                    "--token": server.token(1),
                    "--data": str(folder / "data.jsonl"),
                    "--memory": "2GiB",
                    **({"--fingerprint": server.fingerprint} if tls else {}),
                }
                waits = asyncio.Event()
                tell = lambda at, event: waits.set() if event["event"] == "waiting" else None  # noqa: E731
                async with ClientProcess(folder / "state", flags, tell) as client:
                    await asyncio.wait_for(waits.wait(), START_S)
                    while without_worker and _children(client.pid):  # noqa: ASYNC110 - another process's
                        await asyncio.sleep(0.5)
                    return await _watched(line, server, client, polls)


async def _watched(line: CountedLine, server: ServerProcess, client: ClientProcess, polls: int) -> dict[str, Any]:
    """The numbers from one poll's beginning to that of the poll after so many more."""
    await _next_poll(line)
    began_s, before = time.monotonic(), (server.cost(), cost_of(client.pid))
    line.counts.clear()
    for done in range(polls):
        await _next_poll(line)
        print(f"  {done + 1} of {polls} polls", flush=True)
    seconds, after = time.monotonic() - began_s, (server.cost(), cost_of(client.pid))
    counts = line.counts
    return {
        "polls": polls,
        "seconds": seconds,
        "poll_s": seconds / polls,
        "bytes_per_poll": (counts.up_bytes + counts.down_bytes) / polls,
        "bytes_a_day": (counts.up_bytes + counts.down_bytes) * DAY_S / seconds,
        "server": _numbers(before[0], after[0], seconds),
        "client": _numbers(before[1], after[1], seconds),
    }


async def _next_poll(line: CountedLine) -> None:
    """Return when the client has sent its next request."""
    count = len(line.counts.requests_at)
    while len(line.counts.requests_at) == count:  # noqa: ASYNC110 - a look each 20 ms is exact enough for a minute
        await asyncio.sleep(0.02)


def _children(pid: int) -> list[int]:
    """The processes that a process has started, and that run."""
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for path in tasks.glob("*/children") for child in path.read_text().split()]


def _numbers(before: Cost, after: Cost, seconds: float) -> dict[str, float]:
    return {
        "rss_mib": after.resident_mib,
        "pss_mib": after.shared_out_mib,
        "cpu_share": (after.cpu_s - before.cpu_s) / seconds,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    rows = [
        f"| {name} | {row['rss_mib']:.1f} | {row['pss_mib']:.1f} | {100 * row['cpu_share']:.2f} % |"
        for name, row in ((name, found[name]) for name in ("client", "server"))
    ]
    return [
        "| idle | RSS MiB | PSS MiB | processor |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"{found['bytes_per_poll']:,.0f} bytes per poll of {found['poll_s']:.1f} s, both ways: "
        f"{found['bytes_a_day'] / 1e6:.2f} MB a day, extrapolated from {found['polls']} polls",
    ]


if __name__ == "__main__":
    main()
