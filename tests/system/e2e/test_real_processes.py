"""Whole runs with the real commands: a server, two boards, real training on the builtin base, and power cuts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from demo.federation import PowerCut, run_federation
from demo.fleet import Aggregator, Board, BoardSpec, BoardView, Event, run_command
from tests.fakes.matmul_speed import measured_state

pytestmark = pytest.mark.slow

SETTINGS = {
    "run.rounds": "2",
    "train.batch": "4",
    "train.micro_batch": "4",
    "train.local_steps": "3",
    "train.max_source_tokens": "32",
    "train.max_target_tokens": "12",
    "train.sketch_batches": "1",
    "train.upload": '"fp32"',
    "rounds.quorum": "2",
    "rounds.deadline_s": "120.0",
    "merge.max_rank": "4",
    "merge.server_rank": "8",
    "merge.sketch_every": "1",
}
WORDS = (
    "red",
    "green",
    "blue",
    "old",
    "new",
    "fast",
    "slow",
    "warm",
    "cold",
    "small",
    "large",
    "round",
    "flat",
    "open",
    "closed",
    "heavy",
    "light",
)
THINGS = (
    "pump",
    "valve",
    "motor",
    "sensor",
    "board",
    "cable",
    "filter",
    "pipe",
    "tank",
    "fan",
    "lamp",
    "door",
    "wheel",
    "belt",
    "gear",
)


def write_text(path: Path, *, shift: int = 0) -> str:
    """40 small examples; `shift` gives others of the same kind. Returns the --data spec."""
    lines = []
    for i in range(40):
        word, thing = WORDS[(i * 7 + shift) % len(WORDS)], THINGS[(i * 3 + shift) % len(THINGS)]
        source = f"case {i}: the {word} {thing} was seen in hall {i % 5} and it must be looked at again"
        lines.append(json.dumps({"source": source, "target": f"check the {word} {thing}"}))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def specs(folder: Path, *, shift_of_second: int = 5) -> list[BoardSpec]:
    folder.mkdir(parents=True, exist_ok=True)
    return [
        BoardSpec("first", write_text(folder / "first.jsonl"), "2GiB"),
        BoardSpec("second", write_text(folder / "second.jsonl", shift=shift_of_second), "2GiB"),
    ]


def ignore(views: Sequence[BoardView]) -> None:
    """Nothing to show."""


def accepted(status: Mapping[str, Any]) -> dict[int, int]:
    """Accepted updates per round."""
    return {entry["round"]: entry["accepted"] for entry in status["rounds"]}


def adapter(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """ΔW per weight of an exported PEFT folder."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return {
        name.removesuffix(".lora_B.weight"): b @ tensors[name.replace("lora_B", "lora_A")]
        for name, b in tensors.items()
        if ".lora_B." in name
    }


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Relative Frobenius distance of two sets of ΔW."""
    names = set(one) | set(other)
    gap = sum(float(np.square(one.get(n, 0) - other.get(n, 0)).sum()) for n in names)
    return float(np.sqrt(gap / sum(float(np.square(value).sum()) for value in one.values())))


async def test_a_board_killed_while_training_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL in mid-training and a restart: same identity, every round has every board's update, exit code 0, and what
    the encoder had done before was read from the board's disk."""
    said: list[str] = []

    outcome = await run_federation(
        tmp_path / "run",
        specs(tmp_path / "text"),
        {**SETTINGS, "train.local_steps": "40"},
        on_event=ignore,
        say=said.append,
        cut=PowerCut("second", round=2, at_step=2),
    )

    assert any("SIGKILL" in line for line in said)
    assert accepted(outcome.status) == {1: 2, 2: 2}
    assert len(outcome.status["boards"]) == 2
    assert adapter(outcome.exported)
    for board in ("first", "second"):
        caches = [path for path in (tmp_path / "run").rglob("cache") if path.parent.name == board]
        assert [len([entry for entry in path.rglob("*") if entry.is_file()]) for path in caches] == [40]


async def test_changing_one_boards_data_changes_what_the_other_receives(tmp_path: Path) -> None:
    """Federation is real: with equal text two runs give the same version 2; with one board's text changed, another."""

    async def version_2(name: str, shift: int) -> Mapping[str, Any]:
        for board in ("first", "second"):
            measured_state(tmp_path / name / board)
        outcome = await run_federation(
            tmp_path / name,
            specs(tmp_path / f"{name}-text", shift_of_second=shift),
            {**SETTINGS, "run.rounds": "1"},
            on_event=ignore,
        )
        return adapter(outcome.exported)

    same, again, other = [await version_2(name, shift) for name, shift in (("a", 5), ("b", 5), ("c", 6))]

    assert distance(same, again) < 1e-3
    assert distance(same, other) > 1e-1


async def test_a_server_killed_in_mid_round_goes_on_in_the_same_round(tmp_path: Path) -> None:
    """SIGKILL to the server after one of two updates was accepted: boards wait, nothing is trained or counted twice."""
    server = Aggregator(tmp_path / "server")
    await server.init(2, {**SETTINGS, "run.rounds": "1"})
    await server.start()
    token = await server.token()
    first, second = specs(tmp_path / "text")
    kills = 0
    killed = asyncio.Event()

    def take(board: Board, event: Event) -> None:
        nonlocal kills
        if event.get("event") == "round_done" and not kills:
            kills = 1
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            killed.set()

    boards = [Board(spec, server.url, token, measured_state(tmp_path / spec.name), take) for spec in (first, second)]
    try:
        for board in boards:
            await board.start()
        lives = [asyncio.ensure_future(board.follow()) for board in boards]
        await asyncio.wait_for(killed.wait(), 120)
        await asyncio.sleep(1)
        await server.start()
        codes = await asyncio.wait_for(asyncio.gather(*lives), 180)
        status = await server.status()
    finally:
        await asyncio.gather(*(board.stop() for board in boards))
        await server.stop()

    assert codes == [0, 0]
    assert kills == 1
    assert accepted(status) == {1: 2}


async def test_the_export_is_used_by_generate_and_evaluate(tmp_path: Path) -> None:
    """What `aggregator export` writes, `edge-client generate --adapter` reads, and it changes what the base writes.
    `evaluate` finds it better on what was trained, by its folder and by its version, which the board fetches."""
    server = Aggregator(tmp_path / "server")
    await server.init(1, {**SETTINGS, "rounds.quorum": "1", "train.local_steps": "20", "train.learning_rate": "0.02"})
    spec, exported = specs(tmp_path / "text")[0], tmp_path / "adapter"
    text = "case 3: the red pump was seen in hall 2 and it must be looked at again"
    limits = ("--limit", "20", "--max-source-tokens", "32", "--max-target-tokens", "12", "--prefix", "summarize: ")
    await server.start()
    state = measured_state(tmp_path / spec.name)
    board = Board(spec, server.url, await server.token(), state, lambda board, event: None)
    try:
        await board.start()
        assert await board.follow() == 0
        await server.export(exported)
        version = (await server.status())["run"]["version"]
        adapters = ("--adapter", str(exported), "--adapter", str(version), "--state", str(board.folder))
        report = json.loads(
            await run_command("edge-client", "evaluate", "--data", spec.data, *adapters, *limits, "--json")
        )
    finally:
        await board.stop()
        await server.stop()

    plain = await run_command("edge-client", "generate", "--model", "builtin", text)
    tuned = await run_command("edge-client", "generate", "--model", "builtin", "--adapter", str(exported), text)

    assert plain.strip()
    assert tuned.strip()
    assert plain != tuned
    assert report["n_examples"] == 20
    base, by_folder, by_version = report["contestants"].values()
    assert list(report["contestants"]) == ["base", "adapter", f"version {version}"]
    assert by_folder["difference"]["loss"]["interval"][1] < 0
    assert by_folder["rougeL"] > base["rougeL"]
    assert by_version["loss"] == pytest.approx(by_folder["loss"], rel=1e-3)  # which came rounded
