"""A server whose settings changed while a board trained, with the real commands: refused, and the run goes on."""

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

SETTINGS = {
    "run.rounds": "2",
    "train.batch": "2",
    "train.micro_batch": "2",
    "train.local_steps": "20",
    "train.learning_rate": "0.02",
    "train.max_source_tokens": "32",
    "train.max_target_tokens": "12",
    "rounds.quorum": "1",
    "rounds.deadline_s": "2.0",
    "merge.max_rank": "2",
    "merge.server_rank": "4",
}


async def test_a_refused_round_is_given_up_and_the_next_one_counts(tmp_path: Path) -> None:
    """The server is killed in mid-round and started with a learning rate that cannot have led to what the board then
    sends. Nobody is left to answer the round: it ends at its deadline, and the board trains the next one."""
    server = Aggregator(tmp_path / "server")
    await server.init(1, SETTINGS)
    await server.start()
    texts = ({"source": f"case {i}: the pump in hall {i % 5}", "target": f"look at {i % 5}"} for i in range(20))
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    killed = asyncio.Event()

    def take(board: Board, event: Event) -> None:
        if event.get("phase") == "train" and event.get("step", 0) >= 2 and not killed.is_set():
            killed.set()
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)

    spec = BoardSpec("only", str(tmp_path / "text.jsonl"), "2GiB")
    board = Board(spec, server.url, await server.token(), measured_state(tmp_path / "only"), take)
    try:
        await board.start()
        life = asyncio.ensure_future(board.follow())
        await asyncio.wait_for(killed.wait(), 120)
        await asyncio.sleep(1)
        config = tmp_path / "server" / "run.toml"
        text = config.read_text()
        assert "learning_rate = 0.02" in text
        config.write_text(text.replace("learning_rate = 0.02", "learning_rate = 0.0001"))
        await server.start()
        code = await asyncio.wait_for(life, 180)
        status = await server.status()
    finally:
        await board.stop()
        await server.stop()

    assert code == 0
    assert [(row["state"], row["accepted"]) for row in status["rounds"]] == [("abandoned", 0), ("merged", 1)]
    assert "0 of 1 updates needed accepted, 1 refused" in status["rounds"][0]["reason"]
    only = status["boards"][0]
    assert (only["accepted"], only["refused"], only["evaluated_version"]) == (1, 1, 2)
