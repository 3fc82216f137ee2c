"""A round of next to nothing, with three boards: the seconds that it takes beside the training.

    python -m benchmarks.idle.rounds                 # 20 rounds
    python -m benchmarks.idle.rounds --rounds 40 --json rounds.json

Real processes over the loopback address: a server, and three `edge-client join` that train one strand of each weight of
the builtin base's decoder for one step on one example, on one thread each. A round goes from the moment at which the
first board hears of it to that at which the first hears of the next. "beyond training" is what is left of it without
the steps of the board that took longest over them, as the workers report them. One held-out example is evaluated in
each round, and most rounds bring texts that the board has not encoded before; both count as beyond. The first rounds,
in which processors and files are warmed, are left out. Medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes.client import ClientProcess
from benchmarks.processes.server import ServerProcess
from benchmarks.processes.unit import unit_limits
from edge_client.host.machine import describe_machine

BOARDS = 3

WARM_UP = 2
"""Rounds that are not counted."""

SETTINGS = {
    "rounds.min_devices": str(BOARDS),
    "rounds.quorum": str(BOARDS),
    "train.batch": "1",
    "train.micro_batch": "1",
    "train.local_steps": "1",
    "train.max_source_tokens": "32",
    "train.max_target_tokens": "8",
    "train.sketch_batches": "1",
    "merge.max_rank": "1",
    "merge.server_rank": "1",
}

PHASES = ("fetch", "train", "upload", "round_done")
"""Events of a board in a round, in their order."""


@dataclass(slots=True)
class Told:
    """The events of one board by round, each with when it came; `numbers` are the worker's."""

    at: defaultdict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    numbers: dict[int, dict[str, Any]] = field(default_factory=dict)

    def hear(self, at: float, event: dict[str, Any]) -> None:
        """Take an event."""
        name = event["phase"] if event["event"] == "phase" else event["event"]
        if name in PHASES and event["round"]:
            self.at[event["round"]].setdefault(name, at)
        if event["event"] == "round_done" and event["kind"] == "train":
            self.numbers[event["round"]] = event


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.idle.rounds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--memory", default="2GiB", help="of each board: 380MiB keeps nothing loaded between rounds")
    parser.add_argument("--json", default="", help="file for the numbers")
    options = parser.parse_args()
    print(f"{describe_machine('torch')}, {options.memory} a board\n", flush=True)
    rounds = asyncio.run(measure_rounds(options.rounds, options.memory))
    print("\n".join(_lines(rounds)))
    if options.json:
        Path(options.json).write_text(json.dumps(rounds, indent=2))


async def measure_rounds(rounds: int, memory: str = "2GiB") -> list[dict[str, float]]:
    """The parts of each round but the first and the last, in seconds."""
    told = [Told() for _ in range(BOARDS)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        settings = {**SETTINGS, "run.rounds": str(rounds)}
        with ServerProcess(folder / "run", settings, unit_limits()) as server:
            token = server.token(BOARDS)
            async with AsyncExitStack() as stack:
                boards = [
                    await stack.enter_async_context(_board(folder, number, server.url, token, memory, told[number]))
                    for number in range(BOARDS)
                ]
                statuses = await asyncio.gather(*(board.ended() for board in boards))
    if any(statuses):
        raise RuntimeError(f"boards ended with {statuses}")
    return [parts_of(round_id, told) for round_id in range(1, rounds)]


def _board(folder: Path, number: int, url: str, token: str, memory: str, told: Told) -> ClientProcess:
    data = folder / f"{number}.jsonl"
    rows = ({"source": f"case {i} of board {number}", "target": f"{i + number}"} for i in range(100))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {
        "--server": url,
        "--token": token,
        "--name": f"board-{number}",
        "--data": str(data),
        "--memory": memory,
        "--threads": "1",
        "--eval-examples": "1",
    }
    return ClientProcess(folder / f"{number}", flags, partial(Told.hear, told))


def parts_of(round_id: int, told: list[Told]) -> dict[str, float]:
    """The parts of a round: of the whole, and of the board that was last to hear its receipt."""
    began_s, next_s = (min(board.at[number]["fetch"] for board in told) for number in (round_id, round_id + 1))
    last = max(told, key=lambda board: board.at[round_id]["round_done"])
    at, numbers = last.at[round_id], last.numbers[round_id]
    steps_s = max(board.numbers[round_id]["seconds"] for board in told)
    return {
        "round": float(round_id),
        "whole_s": next_s - began_s,
        "beyond_s": next_s - began_s - steps_s,
        "steps_s": steps_s,
        "fetch_s": at["train"] - began_s,
        "encode_s": numbers["encode_s"],
        "worker_rest_s": at["upload"] - at["train"] - numbers["seconds"] - numbers["encode_s"],
        "upload_s": at["round_done"] - at["upload"],
        "merge_s": next_s - at["round_done"],
    }


WORDS = {
    "whole_s": "a round",
    "steps_s": "of it the steps of the slowest board",
    "beyond_s": "**beyond training**",
    "fetch_s": "run, plan and adapter",
    "encode_s": "texts that are new: the encoder",
    "worker_rest_s": "the worker's rest: the adapter read, one evaluation, states and update written",
    "upload_s": "update sent and judged",
    "merge_s": "merged, and the next round told",
}


def _lines(rounds: list[dict[str, float]]) -> list[str]:
    counted = rounds[WARM_UP:]
    rows = [
        f"| {words} | {1000 * statistics.median(row[name] for row in counted):,.0f} |" for name, words in WORDS.items()
    ]
    return [f"| medians of {len(counted)} rounds | ms |", "| --- | --- |", *rows]


if __name__ == "__main__":
    main()
