"""A server under load: a whole fleet at once, or a few honest boards beside nuisances.

    python -m benchmarks.load                                   # 10, 100 and 1,000 boards, the builtin base
    python -m benchmarks.load --shape base --boards 1000        # FLAN-T5-base's shape
    python -m benchmarks.load --json load.json
    python -m benchmarks.load --nuisance                        # beside each nuisance, 10 s each
    python -m benchmarks.load --nuisance --control              # and the same nuisance at a port of its own
    python -m benchmarks.load --nuisance --quick --only silent junk

**The fleet.** The server is a process of its own with the limits of deploy/aggregator.service, and TLS as there. The
boards are the client's own network code, with its time-outs and back-off, in this process, over the loopback address:
they enrol, profile, fetch, report and upload as clients do, but send prepared random numbers of the right shapes at
ranks 4, 8 and 16 in turn, and all of them at the same moment, for nobody trains. Two cores are enough: one is the
server's, the other all boards'. What is timed includes that core's own queue. "lost" are uploads that were
acknowledged, and are not in the database of the stopped server.

**Beside nuisances.** The server, the nuisance and the honest boards are processes of their own on this machine, over
the loopback address, so that all three share the address: the worst case of a fleet behind one router. The nuisance has
the lowest priority, for it would come from other machines; it takes what processor time is left. Eight boards poll ten
times a second on connections that stay open, and one calls anew four times a second. "after" is the memory once the
nuisance has been gone for `--rest` seconds.

`--control` adds a row for each nuisance in which it calls a port of its own process: what the honest boards feel then
is the machine that they share with it, and not the server. "longest turn" is the most processor time that the server's
event loop took before it looked again for who has called: whatever the machine does besides, so long was a call held up
by those of others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load.nuisances import NUISANCES
from edge_client.host.machine import describe_machine

SHAPES = ("builtin", "small", "base", "large")
"""The builtin base, and FLAN-T5's shapes with random values."""


def main() -> None:
    options = _options()
    rows = _beside(options) if options.nuisance else _fleets(options)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2))


def _beside(options: argparse.Namespace) -> list[dict[str, Any]]:
    from benchmarks.load.beside import measure_beside

    print(f"{describe_machine()}, {options.seconds:g} s each\n", flush=True)
    return measure_beside(options.only, options.seconds, options.rest, has_control=options.control)


def _fleets(options: argparse.Namespace) -> list[dict[str, Any]]:
    from benchmarks.load.fleet import Setting, measure_fleet
    from benchmarks.load.table import call_table, fleet_table
    from benchmarks.processes.unit import unit_limits

    limits = unit_limits()
    print(f"{describe_machine()}; {options.shape} base, {options.rounds} rounds", flush=True)
    print(f"of the shipped unit: {', '.join(limits.applied)}; without {', '.join(limits.left_out) or 'its sandbox'}\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = _model(options.shape, options.bases or Path(folder))
        for boards in options.boards:
            rows.append(
                measure_fleet(
                    Setting(boards, options.rounds, options.shape, model, options.tls != "off", options.train_seconds)
                )
            )
    print("\n".join([*fleet_table(rows), "", *call_table(rows[-1])]), flush=True)
    return rows


def _model(shape: str, bases: Path) -> str:
    """The base, as `aggregator init --model` is given it; a random one is written where it is not there yet."""
    if shape == "builtin":
        return shape
    if not (bases / shape).exists():
        from quantize.random_base import write_random_base  # imports torch

        write_random_base(bases / shape, shape, seed=1)
    return str(bases / shape)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", default="", help="file for the numbers")
    fleet = parser.add_argument_group("the fleet")
    fleet.add_argument("--boards", type=_counts, default=[10, 100, 1000], help="sizes, such as 10,100,1000")
    fleet.add_argument("--shape", choices=SHAPES, default="builtin", help="of the base")
    fleet.add_argument("--rounds", type=int, default=2, help="of training, after the profiles")
    fleet.add_argument("--train-seconds", type=float, default=0.0, help="of each board and round")
    fleet.add_argument("--tls", choices=("self-signed", "off"), default="self-signed", help="of the server")
    fleet.add_argument("--bases", type=Path, help="folder that keeps the random bases (default: none are kept)")
    beside = parser.add_argument_group("beside nuisances")
    beside.add_argument("--nuisance", action="store_true", help="honest boards beside nuisances, in place of a fleet")
    beside.add_argument("--only", nargs="+", default=list(NUISANCES), choices=NUISANCES, metavar="NUISANCE")
    beside.add_argument("--seconds", type=float, default=10.0, help="of each nuisance")
    beside.add_argument("--rest", type=float, default=3.0, help="seconds from its end to the last look at memory")
    beside.add_argument("--control", action="store_true", help="measure also what sharing the machine costs")
    beside.add_argument("--quick", action="store_true", help="3 s each, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rest = 3.0, 1.0
    return options


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",")]
    if min(counts) < 1:
        raise ValueError(text)
    return counts


if __name__ == "__main__":
    main()
