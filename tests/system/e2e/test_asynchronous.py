"""An asynchronous run with the real commands: a board that stands still for two rounds contributes all the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from demo.fleet import Aggregator, Board, BoardSpec, Event
from tests.fakes.matmul_speed import measured_state

pytestmark = pytest.mark.slow

ROUNDS = 8
SETTINGS = {
    "run.rounds": str(ROUNDS),
    "train.batch": "2",
    "train.micro_batch": "2",
    "train.local_steps": "2",
    "train.max_source_tokens": "32",
    "train.max_target_tokens": "12",
    "train.sketch_batches": "1",
    "rounds.mode": '"asynchronous"',
    "rounds.quorum": "1",
    "rounds.staleness_limit": str(ROUNDS),
    "merge.max_rank": "2",
    "merge.server_rank": "4",
}


def spec(folder: Path, name: str) -> BoardSpec:
    path = folder / f"{name}.jsonl"
    lines = ({"source": f"{name} case {i}: the pump in hall {i % 5}", "target": f"look at {i % 5}"} for i in range(20))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return BoardSpec(name, str(path), "2GiB")


async def test_a_board_that_stands_still_for_rounds_contributes(tmp_path: Path) -> None:
    """SIGSTOP while it trains, SIGCONT once two more rounds are done without it: nobody waited, its update counts late,
    and it goes on with the newest version to the end."""
    server = Aggregator(tmp_path / "server")
    await server.init(2, SETTINGS)
    await server.start()
    token = await server.token()
    stopped_in: list[int] = []
    continued_after: list[int] = []

    def take(board: Board, event: Event) -> None:
        group = 0 if slow._process is None else slow._process.pid
        if board is slow and event.get("phase") == "train" and not stopped_in:
            stopped_in.append(event["round"])
            os.killpg(group, signal.SIGSTOP)
        is_done = board is quick and event.get("event") == "round_done"
        if is_done and stopped_in and not continued_after and event["round"] >= stopped_in[0] + 2:
            continued_after.append(event["round"])
            os.killpg(group, signal.SIGCONT)

    states = {name: measured_state(tmp_path / name) for name in ("quick", "slow")}
    quick, slow = (Board(spec(tmp_path, name), server.url, token, state, take) for name, state in states.items())
    try:
        await asyncio.gather(quick.start(), slow.start())
        codes = await asyncio.wait_for(asyncio.gather(quick.follow(), slow.follow()), 120)
        status = await server.status()
    finally:
        await asyncio.gather(quick.stop(), slow.stop())
        await server.stop()

    assert stopped_in and continued_after and codes == [0, 0]
    assert [row["state"] for row in status["rounds"]] == ["merged"] * ROUNDS
    assert sum(row["stale"] for row in status["rounds"]) >= 1
    boards = {board["name"]: board for board in status["boards"]}
    assert boards["slow"]["accepted"] >= 1 and boards["slow"]["evaluated_version"] == ROUNDS + 1
    assert sum(row["accepted"] for row in status["rounds"]) == sum(board["accepted"] for board in boards.values())
