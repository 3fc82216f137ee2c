"""The life of a board's own strands: trained in a run, never sent, used, exported and forgotten."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from aiohttp.test_utils import TestServer
from safetensors.torch import load_file, save_file

from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes
from edge_client.cli.main import run
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.personal.local_strands import read_own
from edge_client.errors import ExitCode
from edge_client.state.folder import StateFolder
from edge_client.worker.process import WorkerProcess
from tests.fakes.board import FakeBoard
from tests.fakes.models.bases import word_tokenizer
from tests.fakes.server import CONFIG, FakeServer
from wire.codec import decode, encode
from wire.messages import Adapter, AdapterPart, Update
from wire.run import Personal
from wire.tensors import pack, unpack

pytestmark = pytest.mark.slow

SEEN_BYTES = 12
"""A run of so many bytes of a matrix would be seen: six values in bf16, which nothing else has by chance."""


@dataclass
class Recorder:
    """A line between board and server that keeps every byte that the board sends."""

    upstream_port: int
    sent: list[bytearray] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = bytearray()
        self.sent.append(sent)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        with suppress(ConnectionError):
            await asyncio.gather(_pump(reader, server_writer, sent), _pump(server_reader, writer, bytearray()))

    def has_sent(self, matrix: np.ndarray) -> bool:
        """Whether a part of the matrix, in fp32 or bf16, row by row or column by column, is in a request."""
        values = torch.from_numpy(np.array(matrix, np.float32))
        for layout in (values, values.t().contiguous()):
            for stored in (layout.numpy().tobytes(), layout.bfloat16().view(torch.int16).numpy().tobytes()):
                starts = range(0, len(stored) - SEEN_BYTES, SEEN_BYTES)
                if any(stored[i : i + SEEN_BYTES] in sent for sent in self.sent for i in starts):
                    return True
        return False


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    while data := await reader.read(65536):
        kept += data
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def recorded(server: FakeServer) -> AsyncIterator[Recorder]:
    """The server behind a recorder, which its url then leads to."""
    async with TestServer(server.app()) as running:
        recorder = Recorder(running.port or 0)
        line = await asyncio.start_server(recorder.handle, "127.0.0.1", 0)
        async with line:
            server.url = f"http://127.0.0.1:{line.sockets[0].getsockname()[1]}"
            yield recorder


class StrandsServer(FakeServer):
    """A run whose bases are no zeros, so that boards have something to train and to send."""

    def adapter(self, version: int, ranks: list[int]) -> bytes:
        adapter = decode(super().adapter(version, ranks), Adapter)
        draw = np.random.default_rng(version)
        parts = tuple(
            AdapterPart(
                name=part.name,
                frozen_b=pack(0.1 * draw.standard_normal((part.frozen_b.shape[0], 1)), "fp32"),
                frozen_a=pack(draw.standard_normal((1, part.frozen_a.shape[1])), "fp32"),
                basis=pack(np.linalg.qr(draw.standard_normal(part.basis.shape).T)[0].T, "fp32"),
            )
            for part in adapter.parts
        )
        return encode(Adapter(protocol=1, run_id=self.run_id, version=version, manifest=adapter.manifest, parts=parts))


class RealBoard(FakeBoard):
    """A board whose worker trains."""

    def worker(self) -> WorkerProcess:
        return WorkerProcess()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of random weights with the sizes of the fake server's, and words for a vocabulary."""
    folder = tmp_path_factory.mktemp("base")
    draw = torch.Generator().manual_seed(0)
    shapes = tensor_shapes(T5Config.parse(CONFIG))
    tensors = {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(word_tokenizer(CONFIG["vocab_size"])))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pairs of words."""
    path = tmp_path_factory.mktemp("data") / "text.jsonl"
    pairs = ({"source": f"w{i} w{i + 1} w{i + 2}", "target": f"w{i + 2} w{i}"} for i in range(20))
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


@dataclass
class Life:
    """What a run with local strands has left: the board's state folder, all it sent, and the strands."""

    state: Path
    recorder: Recorder
    server: FakeServer
    strands: dict[str, Factors]


@pytest.fixture(scope="module")
def life(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """A board takes part in two rounds with strands of its own, which the board asks for and the run does not."""
    folder = tmp_path_factory.mktemp("board") / "state"

    async def take_part() -> tuple[Recorder, FakeServer]:
        server = StrandsServer(base, settings={"learning_rate": 0.01, "local_steps": 3})
        async with recorded(server) as recorder:
            board = RealBoard(server, folder)
            await board.join(data=str(data), personal=Personal(rank=2, learning_rate=0.05))
            return recorder, server

    logging.getLogger("asyncio").setLevel(logging.ERROR)
    recorder, server = asyncio.run(take_part())
    state = StateFolder(folder)
    facts = state.personal.newest()
    assert facts is not None
    own = read_own(state.personal.file(facts).path, facts.key)
    assert own is not None
    yield Life(folder, recorder, server, dict(own.strands))


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run(arguments)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_no_byte_of_local_strands_is_in_a_request(life: Life) -> None:
    """Of all that the board sent in two rounds, no run of bytes is one of its own strands'; what is sent of the
    global strands is found in the same way."""
    updates = [decode(bytes(part), Update) for digest, part in life.server.parts.items() if _is_update(life, digest)]
    assert len(updates) == 2
    assert all(float(factors.b.abs().max()) > 0.01 for factors in life.strands.values())

    sent = [part for update in updates for part in update.parts if part.b.shape[1]]
    assert sent
    assert all(life.recorder.has_sent(unpack(part.b)) for part in sent)
    for factors in life.strands.values():
        assert not life.recorder.has_sent(factors.b.numpy())
        assert not life.recorder.has_sent(factors.a.numpy())


def test_the_server_hears_how_good_they_are(life: Life) -> None:
    """At the end of the run beside the version and the bare base; in a round by their loss."""
    *of_rounds, at_end = [report.values for report in life.server.reports if report.kind == "evaluation"]

    assert len(of_rounds) == 2 and "personal_loss" in of_rounds[-1]
    assert {"base_loss", "personal_rougeL", "personal_exact_match"} < set(at_end)
    assert at_end["personal_loss"] < at_end["loss"]


def _is_update(life: Life, digest: str) -> bool:
    return any(known == digest for _, known in life.server.commits)


def test_a_board_answers_with_its_own_strands(life: Life, capsys: pytest.CaptureFixture[str]) -> None:
    """`generate` and `evaluate` put them on the adapter that the board holds, with the run's base and form; --global
    leaves them out."""
    flags = ["--state", str(life.state)]

    status, own, _ = command(capsys, "generate", "w1 w2 w3", *flags)
    assert status == ExitCode.OK
    held = str(life.state / "held" / "adapter")
    base = life.server.base
    _, everybodys, _ = command(
        capsys, "generate", "w1 w2 w3", *flags, "--global", "--adapter", held, "--model", str(base), "--max-tokens", "8"
    )
    assert own != everybodys


def test_evaluate_judges_them_beside_the_global_adapter(
    life: Life, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three contestants; the one with the local strands has learnt the board's text."""
    flags = ["--state", str(life.state), "--data", str(data), "--json"]

    status, out, _ = command(capsys, "evaluate", *flags)
    assert status == ExitCode.OK
    models = json.loads(out)["contestants"]
    assert list(models) == ["base", "global", "global + personal"]
    assert models["global + personal"]["loss"] < models["global"]["loss"]

    status, out, _ = command(capsys, "evaluate", *flags, "--global", "--model", str(life.server.base))
    assert list(json.loads(out)["contestants"]) == ["base"]


def test_export_writes_what_peft_adds(life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder holds the strands with scaling 1; one that is there is not overwritten."""
    status, out, _ = command(capsys, "personal", "export", "--state", str(life.state), "--out", str(tmp_path / "own"))

    assert status == ExitCode.OK and "local strands of" in out
    tensors = load_file(tmp_path / "own" / "adapter_model.safetensors")
    config: dict[str, Any] = json.loads((tmp_path / "own" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 2
    assert len(tensors) == 2 * len(life.strands)
    for name, factors in life.strands.items():
        assert torch.equal(tensors[f"base_model.model.{name}.lora_A.weight"], factors.a)
        assert torch.equal(tensors[f"base_model.model.{name}.lora_B.weight"], factors.b)

    status, _, err = command(capsys, "personal", "export", "--state", str(life.state), "--out", str(tmp_path / "own"))
    assert status == ExitCode.CONFIG and "is there and not empty" in err


@pytest.mark.parametrize("command_line", [("generate", "w1"), ("evaluate", "--data", "DATA")])
def test_strands_are_put_on_no_other_base(
    life: Life, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command_line: tuple[str, ...]
) -> None:
    """A base that only looks alike is refused with what to do instead."""
    other = tmp_path / "other"
    shutil.copytree(life.server.base, other)
    tensors = {name: 2 * tensor for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(tensors, other / "model.safetensors")
    words = [str(data) if word == "DATA" else word for word in command_line]

    status, _, err = command(capsys, *words, "--state", str(life.state), "--model", str(other))

    assert status == ExitCode.BASE
    assert "are of another base" in err and "--global" in err


def test_strands_are_put_on_no_adapter_of_another_run(
    life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exported folder says of which run it is."""
    folder = tmp_path / "own"
    assert command(capsys, "personal", "export", "--state", str(life.state), "--out", str(folder))[0] == ExitCode.OK
    marker = json.loads((folder / "braid.json").read_text())
    (folder / "braid.json").write_text(json.dumps(marker | {"run": "another"}))

    status, _, err = command(capsys, "generate", "w1", "--state", str(life.state), "--adapter", str(folder))

    assert status == ExitCode.CONFIG
    assert "is of run another, the local strands of this board are of run run-1" in err


def test_damaged_strands_are_said(life: Life, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a file is neither used nor exported; --global does without it, and `forget` removes it."""
    state = tmp_path / "state"
    shutil.copytree(life.state, state)
    (file,) = (state / "personal").glob("*.strands")
    file.write_bytes(file.read_bytes()[:-100])

    for words in (["generate", "w1"], ["personal", "export", "--out", str(tmp_path / "out")]):
        status, _, err = command(capsys, *words, "--state", str(state))
        assert status == ExitCode.CONFIG and "are damaged" in err
    assert not (tmp_path / "out").exists()
    status, out, _ = command(capsys, "personal", "forget", "--yes", "--state", str(state))
    assert (status, out) == (ExitCode.OK, "forgotten: the local strands of 1 run\n")
    assert not list((state / "personal").iterdir())
    status, _, err = command(capsys, "personal", "forget", "--yes", "--state", str(state))
    assert status == ExitCode.CONFIG and "holds no local strands" in err


async def test_steps_of_their_own_follow_each_round(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After each update was sent the board trains its own strands over the adapter of that round, and once the fleet is
    done no more; none of their bytes is sent either."""
    server = StrandsServer(base, settings={"learning_rate": 0.01, "local_steps": 3})
    async with recorded(server) as recorder:
        board = RealBoard(server, tmp_path / "state")
        await board.join(data=str(data), personal=Personal(rank=2, method="apfl", learning_rate=0.05))

    told = board.events("own_strands")
    assert [event["round"] for event in told] == [1, 2]
    assert told[0]["mix"] != told[1]["mix"]
    sent_before = [line for line in server.requests if line.startswith("GET /v1/uploads/")]
    assert len(sent_before) >= 2
    folder = StateFolder(tmp_path / "state").personal
    facts = folder.newest()
    assert facts is not None
    own = read_own(folder.file(facts).path, facts.key)
    assert own is not None and own.mix == told[1]["mix"]
    assert not any(recorder.has_sent(factors.b.numpy()) for factors in own.strands.values())

    status, out, _ = command(
        capsys, "personal", "export", "--state", str(tmp_path / "state"), "--out", str(tmp_path / "own"), "--json"
    )
    assert status == ExitCode.OK and json.loads(out)["whole"]
    tensors = load_file(tmp_path / "own" / "adapter_model.safetensors")
    name, factors = next(iter(own.strands.items()))
    assert len(tensors[f"base_model.model.{name}.lora_A.weight"]) > len(factors.a)  # with the global adapter's part


async def test_the_fleets_adapter_is_fine_tuned_once(base: Path, data: Path, tmp_path: Path) -> None:
    """At the end of the run, over its last version."""
    server = StrandsServer(base, rounds=1, settings={"learning_rate": 0.01, "local_steps": 2})
    async with recorded(server):
        board = RealBoard(server, tmp_path / "state")
        await board.join(data=str(data), personal=Personal(rank=2, method="finetune"))

    assert [event["round"] for event in board.events("own_strands")] == [1]
    phases = [event["phase"] for event in board.events("phase")]
    assert phases[-2:] == ["personal", "evaluate"]
    assert server.reports[-1].values["personal_loss"] < server.reports[-1].values["loss"]


def test_leaving_keeps_the_strands(life: Life, tmp_path: Path) -> None:
    """A board that leaves its server forgets who it was, and not what it has learnt for itself."""
    state = tmp_path / "state"
    shutil.copytree(life.state, state)

    StateFolder(state).forget_identity()

    facts = StateFolder(state).personal.newest()
    assert facts is not None and facts.run_id == "run-1"
