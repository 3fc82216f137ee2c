"""The way of a real user with the real commands: a base by its hub id, a run, an adapter, and PEFT on the same id."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from demo.fleet import BIN, Aggregator, BoardSpec
from tests.fakes.hub import Break, FakeHub, loopback_hub
from tests.fakes.matmul_speed import measured_state
from tests.fakes.models.flan_t5 import SMALL, XL, random_tensors, small_repo, tiny_xl_repo
from tests.system.e2e.test_real_processes import SETTINGS, specs

pytestmark = pytest.mark.slow

MB = 10**6
ROOT = Path(__file__).resolve().parents[3]
TOKENIZER = ROOT.parent / "shared" / "tokenizer"
"""The real tokenizer of T5, where it lies beside the checkout."""

VOCABULARY = 32128

PEFT_ON_THE_SAME_ID = """
import json, sys, warnings
import torch
from peft import AutoPeftModelForSeq2SeqLM
from tokenizers import Tokenizer
from huggingface_hub import hf_hub_download

folder, source, n_tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
config = json.load(open(folder + "/adapter_config.json"))
# Its tokenizer is ours: transformers' own wants files that a base does not need.
tokenizer = Tokenizer.from_file(
    hf_hub_download(config["base_model_name_or_path"], "tokenizer.json", revision=config["revision"])
)
model = AutoPeftModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
ids = tokenizer.encode("summarize: " + source, add_special_tokens=False).ids + [1]
with torch.no_grad():
    written = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=n_tokens, num_beams=1, do_sample=False)
print(json.dumps(tokenizer.decode(written[0].tolist(), skip_special_tokens=True).strip()))
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub with flan-t5-xl in few dimensions: weights in two files with an index, the real tokenizer."""
    with loopback_hub({XL: tiny_xl_repo(VOCABULARY, real_tokenizer())}) as running:
        yield running


def real_tokenizer() -> bytes:
    if not TOKENIZER.is_dir():
        pytest.skip("T5's tokenizer is not in ../shared/tokenizer")
    return (TOKENIZER / "tokenizer.json").read_bytes()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache, whose processes find this checkout."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return tmp_path


def run(*command: object) -> str:
    """A command's standard output and error; it must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run([BIN / words[0], *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


async def train(server: Aggregator, boards: Sequence[tuple[BoardSpec, Path, Mapping[str, str]]]) -> dict[str, Any]:
    """Boards train the run to its end, each in its folder and with its variables. The server's status then."""
    await server.start()
    try:
        token, running = await server.token(), []
        for spec, folder, variables in boards:
            command = ["join", "--server", server.url, "--token", token, "--name", spec.name, "--data", spec.data]
            command += ["--memory", spec.memory, "--threads", "1", "--eval-examples", "8"]
            command += ["--state", str(measured_state(folder))]
            environment = {**os.environ, **variables}
            process = await asyncio.create_subprocess_exec(
                BIN / "edge-client", *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                env=environment,
            )  # fmt: skip
            running.append(process)
        for process in running:
            said, _ = await asyncio.wait_for(process.communicate(), 180)
            assert process.returncode == 0, said.decode()
        return await server.status()
    finally:
        await server.stop()


async def test_from_a_hub_id_to_an_adapter_that_peft_puts_on_the_same_id(
    machine: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """init fetches and pins; a board takes the server's files, another one the hub's; the export names id and commit;
    `generate` by the id and PEFT on the id write the same text, which is not the bare base's."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    commit = hub.repos[XL].commit
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]

    told = run("aggregator", "init", machine / "run", "--model", XL, "--min-devices", 2, *settings)
    assert f"fetching {XL}@{commit[:12]} from {hub.url}: 2 files of weights" in told
    hub.asked.clear()
    assert "wrote" in run(
        "quantize", "convert", f"{XL}@{commit}", "--format", "int8", "--out", machine / "int8"
    )  # of the cache
    assert hub.asked == []
    first, second = specs(machine)
    status = await train(
        Aggregator(machine / "run"),
        [
            (first, machine / "first", {"HF_HOME": str(machine / "home-of-first")}),
            (second, machine / "second", {"HF_HOME": str(machine / "home-of-second"), "BRAID_MODEL": XL}),
        ],
    )
    assert status["base"] == {"model": XL, "revision": commit, "digest": status["base"]["digest"]}
    assert [row["accepted"] for row in status["rounds"]] == [2, 2]
    assert len(hub.downloads("model-00001-of-00002.safetensors")) == 1
    assert (machine / "first" / "base").is_dir() and not (machine / "second" / "base").exists()

    facts = json.loads(run("aggregator", "export", machine / "run", "--out", machine / "adapter", "--json"))
    config = json.loads((machine / "adapter" / "adapter_config.json").read_text())
    assert (facts["base"], facts["revision"]) == (XL, commit)
    assert (config["base_model_name_or_path"], config["revision"]) == (XL, commit)
    card = (machine / "adapter" / "README.md").read_text()
    assert f"from_pretrained('{XL}', revision='{commit}')" in card

    text = "case 3: the red pump was seen in hall 3 and it must be looked at again"
    asked = ("edge-client", "generate", "--model", XL, "--max-tokens", 24, "--json", text)
    ours = json.loads(run(*asked, "--adapter", machine / "adapter"))
    bare = json.loads(run(*asked))
    peft = run("python", "-W", "ignore", "-c", PEFT_ON_THE_SAME_ID, machine / "adapter", text, 24)
    assert json.loads(peft.splitlines()[0]) == ours["answer"] != bare["answer"]


@pytest.fixture
def true_size(tmp_path: Path) -> Iterator[Path]:
    """Random weights in flan-t5-small's own sizes, removed at once: pytest keeps the folders of three sessions."""
    weights = tmp_path / "model.safetensors"
    save_file(random_tensors({}), weights, metadata={"format": "pt"})
    yield weights
    shutil.rmtree(tmp_path)


def test_a_base_of_true_size_comes_through_a_kill_and_two_breaks(machine: Path, true_size: Path) -> None:
    """294 MiB: what had come before a SIGKILL, a closed and a reset connection is not fetched again, and the base that
    was put together so writes."""
    size_bytes = true_size.stat().st_size
    repo = small_repo(true_size, real_tokenizer())
    command = [BIN / "aggregator", "init", machine / "run", "--model", SMALL]
    with loopback_hub({SMALL: repo}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url}
        hub.breaks = [Break(100 * MB)] + [Break(0)] * 20
        killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        part = machine / "home" / "hub" / "models--google--flan-t5-small" / "blobs"
        deadline_s = time.monotonic() + 60
        while not any(path.stat().st_size >= 80 * MB for path in part.glob("*.braid-part")):
            assert killed.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.02)
        killed.kill()
        killed.wait()
        hub.asked.clear()
        hub.breaks = [Break(60 * MB), Break(60 * MB, is_reset=True)]

        told = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert told.returncode == 0, told.stderr
    assert "are here already)" in told.stderr.splitlines()[0] and "294 MiB" in told.stderr
    begun = [int(ask.range.removeprefix("bytes=").removesuffix("-")) for ask in hub.downloads("model.safetensors")]
    assert len(begun) == 3 and 80 * MB <= begun[0] < begun[1] <= begun[2] < size_bytes
    run("edge-client", "generate", "--model", f"{SMALL}@{repo.commit}", "--max-tokens", "4", "a pump leaks")
