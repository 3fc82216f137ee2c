"""`edge-client evaluate` as it is typed: what it prints, what programs read, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp.test_utils import TestServer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes
from edge_client.cli.main import run
from edge_client.errors import ExitCode
from edge_client.state.folder import Identity, StateFolder
from tests.fakes.server import CONFIG, FakeServer, refusal

pytestmark = pytest.mark.slow

METRICS = ("loss", "rouge1", "rouge2", "rougeL", "exact_match", "tool_name", "tool_arguments")
WORDS = [f"w{i}" for i in range(60)]
WEIGHT = "decoder.block.0.layer.0.SelfAttention.q"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of random weights with the sizes of the fake server's, and words for a vocabulary."""
    folder = tmp_path_factory.mktemp("base")
    generator = torch.Generator().manual_seed(0)
    shapes = tensor_shapes(T5Config.parse(CONFIG))
    save_file(
        {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(json.dumps(CONFIG))
    words = ["<pad>", "</s>", "<unk>", "summarize:", "call:", "find", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT folder of rank 2 on one weight, trained with a form of its own."""
    folder = tmp_path_factory.mktemp("peft") / "mine"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    rows, columns = tensor_shapes(T5Config.parse(CONFIG))[f"{WEIGHT}.weight"]
    key = f"base_model.model.{WEIGHT}"
    save_file(
        {
            f"{key}.lora_A.weight": torch.randn(2, columns, generator=generator),
            f"{key}.lora_B.weight": torch.randn(rows, 2, generator=generator),
        },
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": [WEIGHT]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    form = {"prefix": "w7 ", "truncate_source": "end", "max_source_tokens": 16, "max_target_tokens": 8}
    (folder / "braid.json").write_text(json.dumps(form))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 examples, a third of them tool calls, which this tokenizer can write the name of alone."""
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    lines = []
    for i in range(36):
        target = f'call: find {{"query": "w{i}"}}' if i % 3 == 0 else f"w{i} w{i + 1}"
        lines.append(json.dumps({"source": " ".join(WORDS[i : i + 1 + i % 20]), "target": target}))
    path.write_text("\n".join(lines) + "\n")
    return path


def words(base: Path, data: Path, *more: str) -> list[str]:
    return ["evaluate", "--data", str(data), "--model", str(base), "--threads", "1", *more]


def facts(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    """The JSON object that a command line prints, and nothing else on standard output."""
    assert run([*arguments, "--json"]) == ExitCode.OK
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_base_and_adapters_side_by_side(
    base: Path, adapter: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object: every metric of every contestant as a plain number, the same adapter twice with the same numbers, all
    in the adapter's own form."""
    report = facts(capsys, words(base, data, "--adapter", str(adapter), "--adapter", f"twin={adapter}", "--show", "3"))

    assert report["n_examples"] == 36 and report["n_calls"] == 12
    assert report["setting"]["form"] == {
        "prefix": "w7 ",
        "max_source_tokens": 16,
        "max_target_tokens": 8,
        "truncate_source": "end",
    }
    assert report["n_sources_cut"] == sum(1 + i % 20 > 14 for i in range(36))
    contestants = report["contestants"]
    assert list(contestants) == ["base", "mine", "twin"]
    for contestant in contestants.values():
        assert all(isinstance(contestant[metric], float) for metric in METRICS)
        for metric in METRICS:
            low, high = contestant["intervals"][metric]
            assert low <= contestant[metric] <= high
    assert contestants["mine"]["loss"] != contestants["base"]["loss"]
    for metric in METRICS:
        assert contestants["mine"][metric] == contestants["twin"][metric]
        assert contestants["mine"]["difference"][metric] == contestants["twin"]["difference"][metric]
    assert len(report["examples"]) == 3
    assert set(report["examples"][0]["written"]) == {"base", "mine", "twin"}


def test_the_table_and_the_words_around_it(
    base: Path, adapter: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard output the table, the notes and the examples; progress on the other one, as plain lines."""
    assert run(words(base, data, "--adapter", str(adapter), "--prefix", "w9 ", "--show", "1")) == ExitCode.OK

    out, err = capsys.readouterr()
    assert "36 examples of" in out and "all that are usable" in out
    assert "loss, nats per target token (lower is better)\n  base " in out
    assert "right tool, % of the calls (n = 12)" in out
    assert "note: mine was trained with prefix 'w7 ', and is judged with prefix 'w9 '" in out
    assert "cannot write" in out and "--held-out takes these alone" in out
    assert out.count("\n  source  ") == 1
    assert "answering" in err and "72/72" in err and "\x1b" not in err


def test_parts_and_draws_of_the_data(base: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What training leaves out; and some examples, which the seed draws."""
    held_out = facts(capsys, words(base, data, "--held-out"))
    assert 0 < held_out["n_examples"] < 18
    assert held_out["setting"]["part"] == "held_out"

    drawn = [
        {
            one["id"]
            for one in facts(capsys, words(base, data, "--limit", "5", "--seed", seed, "--show", "5"))["examples"]
        }
        for seed in ("1", "1", "2")
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 5


def test_one_example_is_scored_without_intervals(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text(data.read_text().splitlines()[1])

    report = facts(capsys, words(base, one))

    assert report["n_examples"] == 1
    assert report["contestants"]["base"]["tool_name"] is None
    assert set(report["contestants"]["base"]["intervals"].values()) == {None}
    assert any("few" in note for note in report["notes"])


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], status: ExitCode, part: str) -> None:
    """One sentence and one hint, with a documented status, and nothing on standard output."""
    assert run(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if "░" not in line and "█" not in line]
    assert len(lines) == 2, err
    assert lines[0].startswith("error: ") and part in lines[0]
    assert lines[1].startswith("  → ")


def test_bad_input(base: Path, adapter: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An adapter that is not there, damaged, or another base's; data that is empty; a base that is cut."""
    good, empty, single = words(base, data), tmp_path / "empty.jsonl", tmp_path / "single.jsonl"
    empty.write_text("")
    single.write_text('{"source": "w1", "target": "w2"}')
    foreign = shutil.copytree(adapter, tmp_path / "foreign")
    (foreign / "adapter_config.json").write_text(
        (adapter / "adapter_config.json").read_text().replace("block.0", "b.0")
    )
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    cut = shutil.copytree(base, tmp_path / "cut")
    os.truncate(cut / "model.safetensors", 1000)

    refused(capsys, [*good, "--adapter", "/no/such"], ExitCode.CONFIG, "there is no adapter at /no/such")
    refused(capsys, [*good, "--adapter", str(nothing)], ExitCode.CONFIG, "nothing: ")
    refused(capsys, [*good, "--adapter", str(foreign)], ExitCode.CONFIG, "foreign: the adapter has factors of")
    refused(capsys, [*good, "--adapter", "3", "--state", str(nothing)], ExitCode.CONFIG, "no board that has joined")
    refused(capsys, words(base, empty), ExitCode.DATA, "no usable example")
    refused(capsys, words(base, tmp_path / "missing.jsonl"), ExitCode.DATA, "missing.jsonl")
    refused(capsys, words(base, single, "--held-out"), ExitCode.DATA, "holds out no example")
    refused(capsys, words(cut, data), ExitCode.BASE, "truncated")
    refused(capsys, words(tmp_path / "none", data), ExitCode.BASE, "is no folder")
    assert run(["evaluate"]) == ExitCode.USAGE
    assert run([*good, "--limit", "0"]) == ExitCode.USAGE


async def test_versions_come_from_the_boards_server(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A board that has joined needs no folder and names no base: version, base and form are the run's. What the server
    does not keep is refused with what it said, and nothing stays in the state folder."""
    server = FakeServer(base, version=2, state="training", round=1, devices={"board": "credential"})
    state = StateFolder(tmp_path / "state")
    async with TestServer(server.app()) as running:
        url = str(running.make_url("")).rstrip("/")
        state.lock()
        state.write_identity(Identity(server=url, install_id="board", device="d-1", credential="credential"))
        state.unlock()
        before = sorted(path.name for path in state.path.iterdir())
        asked = ["evaluate", "--data", str(data), "--threads", "1", "--state", str(state.path), "--json"]

        status = await asyncio.to_thread(run, [*asked, "--adapter", "2", "--adapter", "first=1"])
        report = json.loads(capsys.readouterr().out)

        async def gone(_: object) -> Any:
            return refusal(404, "not_found", "there is no version 2 here")

        server.faults["GET /v1/adapters/"] = [gone]
        refused_status = await asyncio.to_thread(run, [*asked, "--adapter", "2"])
        told = capsys.readouterr().err

    assert status == ExitCode.OK
    assert list(report["contestants"]) == ["base", "version 2", "first"]
    assert report["setting"]["form"]["max_source_tokens"] == 16
    assert report["contestants"]["version 2"]["difference"]["loss"] == {"value": 0.0, "interval": [0.0, 0.0]}
    fetched = [line.partition("?")[0] for line in server.requests if "/v1/adapters/" in line]
    assert fetched == ["GET /v1/adapters/2", "GET /v1/adapters/1", "GET /v1/adapters/2"]
    assert refused_status == ExitCode.CONFIG and "cannot give version 2" in told
    assert sorted(path.name for path in state.path.iterdir()) == before


def test_ctrl_c_ends_it_without_a_traceback(base: Path, tmp_path: Path) -> None:
    """SIGINT while it answers: one line, status 130."""
    many = tmp_path / "many.jsonl"
    line = json.dumps({"source": " ".join(WORDS), "target": "w1 w2"})
    many.write_text("\n".join([line] * 20_000))
    command = [str(Path(sys.executable).parent / "edge-client"), *words(base, many)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert process.stderr is not None
    seen = next(line for line in process.stderr if line.startswith("answering"))

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert seen and process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "stopped" and "Traceback" not in err
