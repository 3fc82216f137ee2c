"""A run that learns from rewards, with the real commands: one round of right answers, one of the boards' own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from demo.fleet import BIN, Aggregator
from tests.fakes.matmul_speed import measured_state

pytestmark = pytest.mark.slow

SETTINGS = {
    "run.rounds": "2",
    "train.objective": '"reward"',
    "train.batch": "2",
    "train.micro_batch": "2",
    "train.local_steps": "2",
    "train.max_source_tokens": "32",
    "train.max_target_tokens": "8",
    "train.sketch_batches": "1",
    "reward.samples": "2",
    "reward.warm_rounds": "1",
    "rounds.quorum": "3",
    "rounds.deadline_s": "120.0",
    "merge.defence": '"geometric-median"',
    "merge.max_rank": "2",
    "merge.server_rank": "4",
}

POLITE = '[[reward]]\nkind = "words"\nblock = ["pump"]\n'
SHORT = '[[reward]]\nkind = "length"\nat_most = 2\n'
WORDY = (
    '[[reward]]\nkind = "length"\nat_least = 5\nat_most = 9\nname = "long"\n'
    '[[reward]]\nkind = "program"\ncommand = ["/no/such/judge"]\n'
)


async def join(server: Aggregator, folder: Path, name: str, rewards: str, token: str) -> list[dict[str, Any]]:
    """A board's whole life; its events."""
    texts = ({"source": f"case {i}: the pump in hall {i % 5}", "target": f"look at {i % 5}"} for i in range(12))
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    (folder / f"{name}.toml").write_text(
        f'server = "{server.url}"\ndata = "{folder / name}.jsonl"\nmodel = "builtin"\nmemory = "2GiB"\n'
        f'name = "{name}"\n'
        f"threads = 1\neval_examples = 2\njson = true\n{rewards}"
    )
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "edge-client"), "join", "--config", str(folder / f"{name}.toml"), "--token", token),
        *("--state", str(measured_state(folder / name))),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]


async def test_updates_of_boards_that_want_different_things_are_screened_and_merged(tmp_path: Path) -> None:
    """The server names no reward and sees ordinary updates, which its screens accept and a robust rule merges. A board
    whose judge cannot be started says so once and goes on with its other reward."""
    server = Aggregator(tmp_path / "server")
    await server.init(3, SETTINGS)
    await server.start()
    try:
        token = await server.token()
        short, polite, wordy = await asyncio.gather(
            *(
                join(server, tmp_path, name, rewards, token)
                for name, rewards in (("short", SHORT), ("polite", POLITE), ("wordy", WORDY))
            )
        )
        status = await server.status()
    finally:
        await server.stop()

    assert [(row["state"], row["accepted"]) for row in status["rounds"]] == [("merged", 3), ("merged", 3)]
    for events, title in ((short, "length"), (polite, "words"), (wordy, "long")):
        warm, learnt = (event for event in events if event["event"] == "round_done" and event["kind"] == "train")
        assert not {"reward", "kl"} & warm.keys(), "the first round learns from right answers"
        assert {"reward", f"reward_{title}", "kl"} <= learnt.keys()
        assert learnt["accepted"]
    told = [event["message"] for event in wordy if event["event"] == "notice" and "left out" in event["message"]]
    assert told == [
        "reward program is left out of this round: /no/such/judge cannot be started: No such file or directory"
    ]
    assert learnt["reward_lost_program"] == 1
    assert "reward" not in json.dumps(status["boards"])
