"""A base in several files, with the real commands: a board that has nothing fetches it from the server and trains."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

import builtin_base
from tests.fakes.aggregator_command import call

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
TINY = Path(__file__).parents[4] / "shared" / "cases" / "base_sharded_tiny"
INDEX = "model.safetensors.index.json"

SETTINGS = {
    "model.id": "/on/the/server/alone",  # what the board is told; it is on no disk
    "run.rounds": 1,
    "train.batch": 4,
    "train.micro_batch": 4,
    "train.local_steps": 2,
    "train.max_source_tokens": 32,
    "train.max_target_tokens": 12,
    "train.sketch_batches": 1,
    "rounds.quorum": 1,
    "merge.max_rank": 2,
    "merge.server_rank": 4,
}


def builtin_in_shards(folder: Path) -> Path:
    """The base that ships with the project, its int8 rows and their scales spread over three files."""
    source = builtin_base.folder()
    tensors = load_file(source / "model.safetensors")
    files = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    weight_map = {name: files[i % 3] for i, name in enumerate(sorted(tensors))}
    folder.mkdir()
    for file in files:
        part = {name: tensors[name] for name, home in weight_map.items() if home == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


@contextmanager
def served(base: Path, folder: Path) -> Iterator[list[str]]:
    """The flags by which a board joins a server of this base."""
    pairs = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    code, text = call("init", folder, "--model", base, "--min-devices", 1, *pairs)
    assert code == 0, text
    command = [str(BIN / "aggregator"), "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "edge-client join" in line)
        yield line.split()[2:]
    finally:
        process.terminate()
        process.communicate()


def joined(flags: list[str], folder: Path) -> list[dict[str, Any]]:
    """A board's whole life on a state folder that holds nothing; what it told."""
    examples = [{"source": f"case {i}: the pump in hall {i % 5}", "target": f"look at {i % 5}"} for i in range(20)]
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps(example) + "\n" for example in examples))
    command = [str(BIN / "edge-client"), "join", *flags, "--data", str(text), "--state", str(folder / "state")]
    done = subprocess.run(
        [*command, "--name", "only", "--memory", "2GiB", "--threads", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["builtin", "shared"])
def test_a_board_fetches_all_of_a_base_in_shards_and_trains(kind: str, tmp_path: Path) -> None:
    """Index and shards arrive, the digest is the run's, the update is accepted; at the end the server says that the run
    is over and the board finished, and the last progress of the evaluation is its result."""
    if kind == "shared" and not TINY.exists():
        pytest.skip("the shared cases are not beside this checkout")
    base = TINY if kind == "shared" else builtin_in_shards(tmp_path / "base")

    with served(base, tmp_path / "server") as flags:
        events = joined(flags, tmp_path)
        code, text = call("status", tmp_path / "server")

    fetched = {path.name for path in (tmp_path / "state" / "base").glob("*/*")}
    assert fetched == {path.name for path in base.iterdir()} - {"generation_config.json"}
    assert [event["accepted"] for event in events if event["event"] == "round_done"] == [True, True]
    result = [event for event in events if event["event"] == "evaluation"][-1]
    losses = [event["loss"] for event in events if event["event"] == "progress" and event["phase"] == "evaluate"]
    assert [loss for loss in losses if loss][-1] == pytest.approx(result["loss"], abs=1e-9)
    assert code == 0 and "the run is over: its round is done, version 2 is the result" in text
    assert re.search(r"^only +finished", text, re.MULTILINE)
