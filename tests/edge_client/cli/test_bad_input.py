"""Every bad input, given to the real commands: one line, a hint, the documented status, a state that still works."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from braid_common.base.t5_config import T5Config
from edge_client.cli.main import run
from edge_client.errors import ExitCode
from tests.fakes.matmul_speed import measured_state

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
SMALL = {"d_model": 64, "num_heads": 3, "d_kv": 16, "d_ff": 80, "num_layers": 1, "num_decoder_layers": 1}
SETTINGS = (
    "local_steps=1",
    "batch=2",
    "micro_batch=2",
    "sketch_batches=1",
    "max_source_tokens=16",
    "max_target_tokens=8",
)
FILE_LIMIT_BYTES = 4096
"""More than an identity or a plan takes, less than any profile."""


@dataclass(frozen=True)
class Place:
    """A real server, its base as fp32 and as int8 rows, and data that is good."""

    url: str
    token: str
    base: Path
    int8: Path
    data: Path

    def flags(self, state: Path, **changes: str) -> list[str]:
        values = {
            "server": self.url,
            "token": self.token,
            "data": str(self.data),
            "model": str(self.base),
            "state": str(state),
            "memory": "2GiB",
            "threads": "1",
        }
        return [part for name, value in {**values, **changes}.items() for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """`aggregator serve` for a small base that has the builtin tokenizer; it waits for two boards, so boards wait."""
    folder = tmp_path_factory.mktemp("place")
    base = _small_base(folder / "base")
    subprocess.run([BIN / "quantize", "convert", base, "--format", "int8", "--out", folder / "int8"], check=True)
    settings = [part for setting in SETTINGS for part in ("--set", f"train.{setting}")]
    init = [BIN / "aggregator", "init", folder / "server", "--model", base, "--min-devices", "2", *settings]
    subprocess.run(init, check=True, capture_output=True)
    create = [BIN / "aggregator", "token", "create", folder / "server", "--uses", "100"]
    token = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"source": f"text {i}", "target": f"title {i}"}) + "\n" for i in range(40)))
    serve = [BIN / "aggregator", "serve", folder / "server", "--port", "0"]
    process = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        assert process.stdout is not None
        command = next(line for line in process.stdout if "edge-client join" in line).split()
        yield Place(command[command.index("--server") + 1], token, base, folder / "int8", data)
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of a board that has never joined."""
    return measured_state(tmp_path / "state")


def _small_base(folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    import builtin_base
    from braid_common.base.t5_layout import tensor_shapes

    config = {**json.loads((builtin_base.folder() / "config.json").read_text()), **SMALL}
    config.pop("braid_storage", None)
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: 0.1 * torch.randn(shape, generator=generator)
        for name, shape in tensor_shapes(T5Config.parse(config)).items()
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(builtin_base.folder() / "tokenizer.json", folder)
    return folder


def edge_client(*arguments: str, file_limit_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """The real command, to its end."""

    def limit() -> None:
        if file_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))

    return subprocess.run(
        [BIN / "edge-client", *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=limit,
        timeout=120,
    )


def assert_refused(done: subprocess.CompletedProcess[str], status: ExitCode, words: str) -> None:
    """One error line with `words`, one hint, the status, no traceback."""
    lines = done.stderr.strip().splitlines()
    assert done.returncode == status, done.stderr
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert lines[1].startswith("  → ")


def assert_joins(
    place: Place,
    state: Path,
    until: str = "plan",
    look: Callable[[Any, Any], None] = lambda process, event: None,
    file_limits_bytes: tuple[int, int] | None = None,
    **changes: str,
) -> list[Any]:
    """A correct join on the same state folder gets as far as the event `until`, and stops in order. Its events, each of
    which `look` was shown."""

    def limit() -> None:
        if file_limits_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, file_limits_bytes)

    seen: list[Any] = []
    command = [BIN / "edge-client", "join", *place.flags(state, **changes), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=limit)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(json.loads(line))
            look(process, seen[-1])
            if seen[-1]["event"] in (until, "error"):
                break
        assert seen[-1]["event"] == until, seen[-1]
        assert seen[-1].get("accepted", True)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    return seen


def test_an_unreachable_server_then_the_right_one(place: Place, tmp_path: Path) -> None:
    """Nobody listens; the same folder then joins where somebody does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"

    done = edge_client("join", *place.flags(tmp_path / "state", server=nowhere))

    assert_refused(done, ExitCode.UNREACHABLE, "cannot be reached: connection refused")
    assert_joins(place, tmp_path / "state")


@pytest.mark.parametrize("token", ["wrong", "x" * 5000, "with\nnewline", "schlüssel"])
def test_a_wrong_token_then_the_right_one(place: Place, state: Path, token: str) -> None:
    """Refused by the server, or here where no server could take it; the next try works."""
    done = edge_client("join", *place.flags(state, token=token))

    status = ExitCode.REFUSED if token in ("wrong", "schlüssel") else ExitCode.CONFIG
    assert_refused(done, status, "token")
    assert_joins(place, state)


def test_a_name_that_cannot_be_sent(place: Place, tmp_path: Path) -> None:
    """It is the flag's fault, not a bug."""
    assert_refused(edge_client("join", *place.flags(tmp_path / "s", name="n" * 500)), ExitCode.CONFIG, "--name")


def test_another_base_then_the_right_one(place: Place, state: Path, tmp_path: Path) -> None:
    """Both digests are shown; the identity from the enrolment before it stays good."""
    other = shutil.copytree(place.base, tmp_path / "other")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")

    done = edge_client("join", *place.flags(state, model=str(other)))

    assert_refused(done, ExitCode.BASE, "is not the run's: its digest is")
    assert_joins(place, state, token="")


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.001, 0.5, 0.999999])
@pytest.mark.parametrize("storage", ["base", "int8"])
def test_a_truncated_base_is_called_that(place: Place, state: Path, tmp_path: Path, storage: str, share: float) -> None:
    """Full precision and int8 rows, cut in the length, the header and the data: join and plan say the same."""
    cut = shutil.copytree(getattr(place, storage), tmp_path / "cut")
    whole_bytes = (cut / "model.safetensors").stat().st_size
    os.truncate(cut / "model.safetensors", int(share * whole_bytes))

    joined = edge_client("join", *place.flags(state, model=str(cut)))
    planned = edge_client("plan", "--model", str(cut), "--state", str(state))

    assert_refused(joined, ExitCode.BASE, "damaged or truncated")
    assert_refused(planned, ExitCode.BASE, "damaged or truncated")


def test_too_little_memory_then_enough(place: Place, state: Path) -> None:
    """The line says how much the smallest plan needs; with that much, the board joins."""
    done = edge_client("join", *place.flags(state, memory="100MiB"))

    assert_refused(done, ExitCode.MEMORY, "the smallest needs")
    needed = done.stderr.partition("(")[2].partition(" bytes")[0]
    assert_joins(place, state, memory=needed)


@pytest.mark.parametrize(("text", "words"), [(None, "No such file"), ("", "0 unusable"), ("no\n[]\n", "2 unusable")])
def test_data_of_no_use_then_some(place: Place, state: Path, tmp_path: Path, text: str | None, words: str) -> None:
    """Missing, empty, nothing but unreadable lines; nothing was sent, and good data joins."""
    path = tmp_path / "bad.jsonl"
    if text is not None:
        path.write_text(text)

    done = edge_client("join", *place.flags(state, data=str(path)))

    assert_refused(done, ExitCode.DATA, words)
    assert_joins(place, state)


def test_unreadable_lines_are_counted_and_left_out(place: Place, state: Path, tmp_path: Path) -> None:
    """The first is named, and the board joins with the others."""
    path = tmp_path / "data.jsonl"
    path.write_text("not json\n" + place.data.read_text() + '{"source": 3}\n')

    events = assert_joins(place, state, data=str(path))

    assert events[0]["message"].startswith(f"2 unusable lines or files in {path} are left out; first: {path}:1")


def test_a_full_disk_then_space(place: Place, state: Path) -> None:
    """A real limit on file sizes, met by the worker: the client says so and waits; once there is space, it makes the
    profile and sends it."""

    def make_room(process: subprocess.Popen[str], event: Any) -> None:
        if event["event"] == "notice" and "no space left for" in event["message"]:
            full.append(event["hint"])
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))

    full: list[str] = []
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    assert_joins(place, state, until="round_done", look=make_room, file_limits_bytes=(FILE_LIMIT_BYTES, hard))

    assert len(full) == 1 and "free some space" in full[0]


def test_a_disk_that_is_full_at_once(place: Place, tmp_path: Path) -> None:
    """Not even the identity can be kept: nothing is sent, nothing half-written stays."""
    done = edge_client("join", *place.flags(tmp_path / "state"), file_limit_bytes=0)

    assert_refused(done, ExitCode.DISK, "no space left for")
    assert not list((tmp_path / "state").glob("identity*"))
    assert_joins(place, tmp_path / "state")


@pytest.mark.parametrize("status", [426, 200])
async def test_another_protocol_version_stops_the_board(server: Any, place: Place, state: Path, status: int) -> None:
    """A server of version 2, whether it refuses version 1 or just answers in its own."""
    import asyncio

    async def newer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Content-Type": "application/vnd.braid+msgpack; v=2"})

    server.faults["POST /v1/devices"] = [newer]
    flags = place.flags(state, server=server.url)

    done = await asyncio.to_thread(edge_client, "join", *flags)

    assert_refused(done, ExitCode.REFUSED, "")
    assert "update the older of the two" in done.stderr


# --- the other commands: in this process, for each would import torch again --------------------------------------


def refused(capsys: Any, arguments: list[str], status: ExitCode, words: str) -> None:
    code = run(arguments)
    assert_refused(subprocess.CompletedProcess(arguments, code, "", capsys.readouterr().err), status, words)


def test_generate_with_bad_input(place: Place, tmp_path: Path, capsys: Any) -> None:
    """No text, no such model, a base that is cut, an adapter folder that is empty, damaged or another model's."""
    good = ["generate", "hello", "--model", str(place.base)]
    empty, damaged, foreign = tmp_path / "empty", tmp_path / "damaged", tmp_path / "foreign"
    for folder in (empty, damaged, foreign):
        folder.mkdir()
    for folder in (damaged, foreign):
        (folder / "adapter_config.json").write_text('{"lora_alpha": 4}')
    (damaged / "adapter_model.safetensors").write_bytes(b"damage")
    shutil.copy(place.base / "model.safetensors", foreign / "adapter_model.safetensors")
    cut = shutil.copytree(place.base, tmp_path / "cut")
    os.truncate(cut / "model.safetensors", 100_000)

    refused(capsys, ["generate", "", "--model", str(place.base)], ExitCode.DATA, "no text")
    refused(capsys, ["generate", "hello", "--model", "/no/such"], ExitCode.BASE, "is no folder")
    refused(capsys, ["generate", "hello", "--model", str(cut)], ExitCode.BASE, "truncated")
    refused(capsys, [*good, "--adapter", str(empty)], ExitCode.CONFIG, "has no adapter_config.json")
    refused(capsys, [*good, "--adapter", str(damaged)], ExitCode.CONFIG, "damaged")
    refused(capsys, [*good, "--adapter", str(foreign)], ExitCode.CONFIG, "no LoRA factor")
    refused(capsys, [*good, "--adapter", str(place.data)], ExitCode.CONFIG, "is no adapter")
    assert run([*good, "--adapter", str(tmp_path / "missing")]) == ExitCode.USAGE
    assert run(["generate"]) == ExitCode.USAGE


def test_plan_with_bad_input(place: Place, tmp_path: Path, capsys: Any) -> None:
    """No such model, a folder that is none, a config.json that is not a T5's, a server that was never joined."""
    foreign = shutil.copytree(place.base, tmp_path / "foreign")
    (foreign / "config.json").write_text('{"model_type": "t5", "d_model": "x"}')

    refused(capsys, ["plan", "--model", "/no/such"], ExitCode.BASE, "is no folder")
    refused(capsys, ["plan", "--model", str(tmp_path)], ExitCode.BASE, "config.json")
    refused(capsys, ["plan", "--model", str(foreign)], ExitCode.BASE, "not a FLAN-T5's")
    refused(capsys, ["plan", "--memory", "1 lot"], ExitCode.CONFIG, "memory size")
    refused(capsys, ["plan", "--server", place.url, "--state", str(tmp_path)], ExitCode.CONFIG, "has not joined")
