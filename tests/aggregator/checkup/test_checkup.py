"""`aggregator check`: what it finds in a sound folder, beside a running server, and in folders that are harmed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aggregator.cli import cli
from aggregator.errors import ExitCode
from aggregator.store.folder import Folder
from braid_common.units import show_size

SETTINGS = {"train.targets": ["q"], "merge.max_rank": 1, "rounds.min_devices": 2, "rounds.quorum": 2, "run.rounds": 3}


def checked(folder: Folder) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["check", str(folder.root)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def lines(output: str, state: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(state)]


@pytest.fixture
async def server(make_folder: Any, start: Any, begin_training: Any) -> Any:
    """A running server in its second round, with the update of one of two boards."""
    made = await start(make_folder(SETTINGS))
    boards = [await made.board(name) for name in ("a", "bo")]
    for board, task in zip(boards, await begin_training(boards), strict=True):
        await board.train(task, rank=1)
    await boards[0].train(await boards[0].work(after=1), rank=1)
    return made


def content(folder: Folder) -> dict[Path, bytes]:
    """All files but those that SQLite keeps beside the database for whoever looks at it."""
    found = [path for path in folder.root.rglob("*") if path.is_file() and not path.name.startswith("braid.db-")]
    return {path: path.read_bytes() for path in found}


async def test_a_sound_folder(server: Any, stop: Any) -> None:
    """Status 0 beside the running server and after it; nothing is written."""
    folder = server.opened.folder
    for _ in range(2):
        before = content(folder)
        status, output = checked(folder)
        assert status == 0 and not lines(output, "DAMAGED") and not lines(output, "WARNING"), output
        assert "version 2 is the newest, round 2 is open; kept: 1, 2" in output
        assert "3, " in lines(output, "ok       files")[0]
        assert content(folder) == before
        await stop(server)


async def test_facts_for_programs(server: Any, stop: Any) -> None:
    await stop(server)
    folder = server.opened.folder
    next(folder.blobs.iterdir()).write_bytes(b"")
    result = CliRunner().invoke(cli, ["check", str(folder.root), "--json"])
    facts = json.loads(result.output)
    assert result.exit_code == ExitCode.STATE and facts["damaged"] == 1
    assert {"what", "state", "text", "hint"} == set(facts["findings"][0])


def harm_blob(server: Any, digest: str) -> None:
    path = server.opened.folder.blobs / digest
    path.write_bytes(path.read_bytes()[:-1])


def newest(server: Any) -> None:
    harm_blob(server, server.opened.store.versions()[2])


def older(server: Any) -> None:
    harm_blob(server, server.opened.store.versions()[1])


def update(server: Any) -> None:
    (server.opened.folder.blobs / server.opened.store.updates(2)[0].digest).unlink()


def database(server: Any) -> None:
    path = server.opened.folder.database
    data = path.read_bytes()
    path.write_bytes(data[:8192] + os.urandom(8192) + data[16384:])


def setting(server: Any) -> None:
    path = server.opened.folder.config
    path.write_text(path.read_text().replace("max_rank = 1", "max_rank = 2"))


def no_toml(server: Any) -> None:
    server.opened.folder.config.write_text("[run\n")


def base(server: Any) -> None:
    path = server.opened.config.model.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def base_gone(server: Any) -> None:
    (server.opened.config.model.path / "config.json").unlink()


HARMS = [
    (newest, "version 2", "or the run goes on from version 1"),
    (older, "version 1", "put the file back from the backup"),
    (update, "upload of a", "asks the board for another one"),
    (database, "database", "put the folder's backup back"),
    (setting, "settings", "Put the old value back"),
    (no_toml, "run.toml", "Mend the line"),
    (base, "base", "Put the old files back"),
    (base_gone, "base", "Put the old files back"),
]


@pytest.mark.parametrize(("harm", "what", "remedy"), HARMS, ids=[harm.__name__ for harm, *_ in HARMS])
async def test_what_is_damaged_is_named_with_what_to_do(
    server: Any, stop: Any, monkeypatch: pytest.MonkeyPatch, harm: Any, what: str, remedy: str
) -> None:
    """Status 5, a line for each, and the rest is looked at all the same."""
    versions, updates = server.opened.store.versions(), server.opened.store.updates(2)
    await stop(server)
    monkeypatch.setattr(server.opened.store, "versions", lambda: versions)  # the harms ask, and it is closed
    monkeypatch.setattr(server.opened.store, "updates", lambda _: updates)
    harm(server)

    status, output = checked(server.opened.folder)

    assert status == ExitCode.STATE and lines(output, f"DAMAGED  {what}"), output
    assert remedy in output and lines(output, "ok       permissions")


async def test_warnings_have_status_0(server: Any, stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that others may read, files put aside, what was lost before, no room."""
    folder = server.opened.folder
    (answer,) = server.opened.store.updates(2)
    server.opened.store.lose_answer(answer, False, "for this test")
    await stop(server)
    folder.quarantine.mkdir()
    (folder.quarantine / "x").write_bytes(b"x")
    folder.key.write_bytes(b"")
    folder.key.chmod(0o644)
    monkeypatch.setattr("aggregator.checkup.files.shutil.disk_usage", lambda _: _Usage())

    status, output = checked(folder)

    assert status == 0 and not lines(output, "DAMAGED")
    warned = "\n".join(lines(output, "WARNING"))
    assert "others on this machine may read it" in warned and "1 damaged files were put aside" in warned
    assert "for this test" in warned and f"{show_size(_Usage.free)} free" in warned


class _Usage:
    """A file system with next to no room."""

    free = 7


async def test_no_more_boards_may_join(server: Any, stop: Any) -> None:
    for token in server.opened.store.tokens():
        server.opened.store.revoke_token(token.id)
    await stop(server)
    _, output = checked(server.opened.folder)
    assert "no more boards may join" in output and f"aggregator token create {server.opened.folder.root}" in output


def test_a_new_folder_and_none(make_folder: Any, tmp_path: Path) -> None:
    status, output = checked(make_folder())
    assert status == 0 and "is made at the first start" in output
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "none")])
    assert getattr(result.exception, "exit_code", None) == ExitCode.STATE
