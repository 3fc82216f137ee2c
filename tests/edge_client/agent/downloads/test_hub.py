"""A board that is told to take the run's base from the hub: in a process of its own, at the run's commit."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from braid_common.hub.model_id import HubId
from edge_client.agent.console import Console
from edge_client.agent.downloads.hub import fetch_apart
from edge_client.base.locate import find_here
from edge_client.errors import BaseModelError, DiskError
from tests.fakes.hub import FakeHub, Repo, loopback_hub
from tests.fakes.models.flan_t5 import SMALL, hub_environment, use_hub


@pytest.fixture
def hub(base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with the fake server's base under FLAN-T5's name, for this process and for those that it starts."""
    files = {path.name: path.read_bytes() for path in base_folder.iterdir()}
    with loopback_hub({SMALL: Repo(files)}) as running:
        use_hub(monkeypatch, running, tmp_path / "home")
        for name, value in hub_environment(running, tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))
        yield running


def rename_base(server: Any, hub: FakeHub) -> None:
    """Let the server's run be made from the hub."""
    run = server.run

    def from_hub() -> Any:
        found = run()
        base = msgspec.structs.replace(found.base, model=SMALL, revision=hub.repos[SMALL].commit)
        return msgspec.structs.replace(found, base=base)

    server.run = from_hub


@pytest.mark.slow
@pytest.mark.parametrize("model", ["", SMALL])
async def test_a_board_asks_the_hub_only_where_it_was_told_to(
    board: Any, server: Any, hub: FakeHub, model: str
) -> None:
    """Without --model all comes from the server; with the run's id all comes from the hub, at the run's commit and not
    at what the branch means by now, and the next start finds it in the cache."""
    rename_base(server, hub)
    if model:  # the branch moves on; its old commit can still be had
        hub.repos[SMALL] = Repo(hub.repos[SMALL].files, names=())

    await board.join(model=model)

    assert server.state == "finished"
    from_server = [line for line in server.requests if line.startswith("GET /v1/base/")]
    if not model:
        assert from_server and hub.asked == []
        return
    assert not from_server and hub.fetched() == {"config.json", "tokenizer.json", "model.safetensors"}
    assert [line["message"] for line in board.events("notice") if "1 file of weights" in line["message"]]
    steps = [line for line in board.events("progress") if line["phase"] == "base"]
    assert steps[-1]["step"] == steps[-1]["steps"] > 0 and steps[-1]["unit"] == "MiB"
    hub.asked.clear()
    assert find_here(server.run().base).is_dir() and hub.asked == []


@pytest.mark.slow
async def test_what_the_hub_refuses_ends_the_board_with_its_reason(hub: FakeHub, tmp_path: Path) -> None:
    """As a base that cannot be had, or a disk that cannot be written; the way out is the server's files."""
    console = Console(stream=io.StringIO())

    with pytest.raises(BaseModelError, match="has no model a/b, or it is private") as caught:
        await fetch_apart(HubId("a/b"), console)
    assert "leave --model out: the server has the files" in caught.value.hint
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(DiskError, match="cannot be written"):
        await fetch_apart(HubId(SMALL), console)


@pytest.mark.slow
async def test_a_board_that_is_stopped_ends_its_download(hub: FakeHub, tmp_path: Path) -> None:
    """Ctrl-C does not wait for gigabytes: the process is gone when the client is."""
    hub.hangs = True
    console = Console(stream=io.StringIO())
    task = asyncio.create_task(fetch_apart(HubId(SMALL), console))
    while not hub.downloads("model.safetensors"):
        assert not task.done()
        await asyncio.sleep(0.02)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert not [line for line in Path("/proc/self/task").glob("*/children") if b"braid_common.hub" in _commands(line)]


def _commands(children: Path) -> bytes:
    """Command lines of the processes that a file of /proc lists."""
    lines = []
    for number in children.read_text().split():
        path = Path("/proc") / number / "cmdline"
        lines.append(path.read_bytes() if path.exists() else b"")
    return b"\n".join(lines)


def test_lines_are_those_of_the_process(hub: FakeHub, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """The module that runs apart writes an object a line, the last one with the folder."""
    from braid_common.hub.__main__ import main

    monkeypatch.setattr("sys.argv", ["braid_common.hub", SMALL])
    main()

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(lines[0]) == ["say"] and list(lines[1]) == ["done_bytes", "total_bytes"]
    assert Path(lines[-1]["folder"]).name == hub.repos[SMALL].commit
