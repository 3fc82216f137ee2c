"""A board that lacks the base takes it from the server, and refuses what is not the run's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from edge_client.errors import (
    BaseModelError,
    ExitCode,
)
from wire.codec import CONTENT_TYPE, encode
from wire.messages import BaseFile, BaseFiles


@pytest.fixture
def far_base(server: Any, tmp_path: Path) -> Path:
    """The folder of a base that only the server has."""
    folder = tmp_path / "only-the-server-has-this"
    shutil.copytree(server.base, folder)
    run, server.base = server.run, folder

    def run_of_unknown_base() -> Any:
        found = run()
        return msgspec.structs.replace(found, base=msgspec.structs.replace(found.base, model="no/such-model"))

    server.run = run_of_unknown_base
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("names", [["model.safetensors"], ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]])
async def test_a_board_without_the_base_takes_it_from_the_server(
    board: Any, server: Any, far_base: Path, names: list[str]
) -> None:
    """Where --model and the run's own name lead nowhere, all of the server's files do, with their digest checked."""
    weights = (far_base / "model.safetensors").read_bytes()
    (far_base / "model.safetensors").unlink()
    for name in names:
        (far_base / name).write_bytes(weights)
    if len(names) > 1:
        index = {"weight_map": {f"tensor {i}": name for i, name in enumerate(names)}}
        (far_base / "model.safetensors.index.json").write_text(json.dumps(index))
        names = [*names, "model.safetensors.index.json"]

    await board.join()

    for name in ("config.json", "tokenizer.json", *names):
        assert f"GET /v1/base/{name}" in server.requests
    assert server.state == "finished"


async def test_a_server_cannot_make_a_board_store_what_is_no_base(
    board: Any, server: Any, far_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another kind, and more than the disk holds, are refused before a byte is fetched."""
    for file, told in (
        (BaseFile(name="run.py", size_bytes=1), "no part of a base"),
        (BaseFile(name="model.safetensors", size_bytes=2**53), "free"),
    ):
        listed = encode(BaseFiles(files=(file,)))
        fault = web.Response(body=listed, headers={"Content-Type": CONTENT_TYPE})

        async def lie(_: web.Request, answer: web.Response = fault) -> web.Response:
            return answer

        server.faults["GET /v1/base"] = [lie]
        with pytest.raises(BaseModelError, match=told):
            await board.join()
    assert not [line for line in server.requests if line.startswith("GET /v1/base/")]


async def test_a_base_that_is_not_the_runs_is_refused(board: Any, base_folder: Path, tmp_path: Path) -> None:
    """A wrong digest ends the client before it trains a single step, and says what to do."""
    other = tmp_path / "other"
    shutil.copytree(base_folder, other)
    config = other / "config.json"
    config.write_text(config.read_text() + "\n")

    with pytest.raises(BaseModelError, match="digest") as caught:
        await board.join(model=str(other))

    assert caught.value.exit_code == ExitCode.BASE
    assert "--model" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["flipped bit", "half", "empty", "gone"])
async def test_a_base_that_a_card_has_damaged_is_fetched_again(
    board: Any, server: Any, far_base: Path, fault: str
) -> None:
    """The folder that an earlier start has left: found by its digest, said, and fetched whole, in one start."""
    async with board.client(token="token-for-tests") as client:
        identity, run = await client.enrol()
        await client.prepare(identity.device, run)
    (weights,) = (board.folder / "base").rglob("model.safetensors")
    whole = weights.read_bytes()
    damaged = {"flipped bit": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "half": whole[: len(whole) // 2]}
    weights.unlink() if fault == "gone" else weights.write_bytes(damaged.get(fault, b""))
    server.requests.clear()

    await board.join()

    assert server.state == "finished" and weights.read_bytes() == whole
    assert server.requests.count("GET /v1/base/model.safetensors") == 1
    assert any("is fetched again" in event["message"] for event in board.events("notice")) == (fault != "gone")


async def test_a_server_whose_base_is_not_the_runs_is_asked_once(board: Any, server: Any, far_base: Path) -> None:
    """What was just fetched and is wrong is not fetched for ever."""
    server.base_said = "a" * 64

    with pytest.raises(BaseModelError, match="is not the run's"):
        await board.join()

    assert server.requests.count("GET /v1/base/model.safetensors") == 1
    assert not any((board.folder / "base").rglob("*.safetensors"))
