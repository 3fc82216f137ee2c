"""`aggregator token` and `aggregator device`: what they print, what they change, and the mode of what they leave."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import ExitCode
from aggregator.run.setup import open_run, open_store
from aggregator.store.folder import Folder
from aggregator.store.secrets import secret_hash
from tests.fakes.aggregator_command import call


@pytest.fixture
def folder(make_folder: Any) -> Folder:
    made: Folder = make_folder()
    return made


def enrol(folder: Folder, token: str, *numbers: int) -> None:
    store = open_store(folder)
    for number in numbers:
        store.enrol(f"{number:032x}", f"board-{number}", f"{number:064x}", secret_hash(token))
    store.close()


def listed(kind: str, folder: Folder) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(call(kind, "list", folder.root, "--json")[1])
    return rows


def test_a_token_is_for_one_board_and_a_day_unless_said_otherwise(folder: Folder) -> None:
    """Standard output has the secret alone, for scripts; the rest is said beside it."""
    code, text = call("token", "create", folder.root)
    assert code == 0 and "for 1 board within 1 d 0 h" in text
    made = json.loads(
        call("token", "create", folder.root, "--uses", 3, "--expires", "7d", "--label", "hall", "--json")[1]
    )

    plain, hall = listed("token", folder)[1:]
    assert (plain["uses"], round(plain["expires_in_s"], -2)) == (1, 86400)
    assert (hall["uses"], round(hall["expires_in_s"], -2), hall["label"]) == (3, 7 * 86400, "hall")
    assert made["expires_at"] == hall["expires_at"] and made["token"] not in json.dumps(listed("token", folder))
    for arguments in (("--expires", "soon"), ("--expires", "0h"), ("--uses", "0")):
        assert call("token", "create", folder.root, *arguments)[0] in (ExitCode.CONFIG, ExitCode.USAGE)


def test_tokens_are_listed_with_what_they_made(folder: Folder) -> None:
    """State, uses, time left and devices: after a leak one sees whom it let in."""
    token = json.loads(call("token", "create", folder.root, "--uses", 2, "--label", "hall", "--json")[1])["token"]
    enrol(folder, token, 1)
    _, text = call("token", "list", folder.root)
    assert "hall" in text and "valid" in text and "1 of 2" in text and "board-1" in text

    enrol(folder, token, 2)

    assert [(row["state"], row["devices"]) for row in listed("token", folder)] == [
        ("valid", []),
        ("used up", ["board-1", "board-2"]),
    ]
    assert [row["token"] for row in listed("device", folder)] == [2, 2]


def test_a_device_is_revoked_allowed_and_removed(folder: Folder) -> None:
    """Each says what it did; the token that the board knows ends with it; a removed one that is shut out is shown."""
    token = json.loads(call("token", "create", folder.root, "--uses", 9, "--json")[1])["token"]
    enrol(folder, token, 1, 2, 3)

    code, text = call("device", "revoke", folder.root, "board-1")
    assert code == 0 and "board-1 is revoked" in text and "token 2, which it knows, is revoked as well" in text
    assert listed("token", folder)[1]["state"] == "revoked"
    assert call("device", "allow", folder.root, "board-1")[0] == 0
    assert [row["state"] for row in listed("device", folder)] == ["enrolled"] * 3

    call("device", "revoke", folder.root, "board-1")
    code, text = call("device", "remove", folder.root, "board-1", "board-2")
    assert code == 0 and "board-1 is removed" in text and "board-2 is removed" in text
    assert [(row["device"], row["state"]) for row in listed("device", folder)] == [
        ("board-1", "removed, shut out"),
        ("board-3", "enrolled"),
    ]
    for command in ("revoke", "allow", "remove"):
        code, text = call("device", command, folder.root, "nobody")
        assert code == ExitCode.CONFIG and "device list" in text


def test_nothing_in_the_folder_is_open_to_others(tmp_path: Path, server_base: Path) -> None:
    """Whatever the umask: folders 0700, files 0600, those of SQLite and of uploads among them."""
    before = os.umask(0)
    try:
        assert call("init", tmp_path / "new" / "srv", "--model", server_base)[0] == 0
        folder = Folder(tmp_path / "new" / "srv")
        opened = open_run(folder, time.monotonic, time.time)
        part = opened.uploads.take("ada", 1, "0" * 64, 0)
        part.append(b"text")
        found = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder.root, *folder.root.rglob("*"))}
        opened.store.close()
    finally:
        os.umask(before)

    assert {folder.database, folder.uploads, folder.blobs, folder.cuts} <= found.keys()
    assert any(path.parent == folder.uploads for path in found) and any("-wal" in path.name for path in found)
    assert {path.name: oct(mode) for path, mode in found.items() if mode & 0o077} == {}


def test_a_folder_of_an_older_version_is_shut(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """At the next start, once, in the log; what else lies in the folder stays as it is."""
    open_run(folder, time.monotonic).store.close()
    other = folder.root / "notes.txt"
    other.write_text("mine")
    for path in (folder.database, folder.config, folder.blobs, other):
        path.chmod(0o755 if path.is_dir() else 0o644)

    for _ in range(2):
        open_run(folder, time.monotonic).store.close()

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.database, folder.config, folder.blobs, other)]
    assert modes == [0o600, 0o600, 0o700, 0o644]
    assert len([record for record in caplog.records if "open to others" in record.message]) == 1


@pytest.mark.parametrize("spent", [False, True])
def test_serve_prints_a_token_that_still_lets_boards_in(folder: Folder, spent: bool) -> None:
    """How many and how long; where it lets nobody in any more, how to make another."""
    from aggregator.http.server import _greet_boards

    opened = open_run(folder, time.monotonic)
    secret, lines = folder.secret(folder.join_token), list[str]()
    if spent:
        opened.store.revoke_token(1)

    _greet_boards(opened, "http://a:1", "", lines.append)
    opened.store.close()

    text = "\n".join(lines)
    assert f"aggregator token create {folder.root} --uses N" in text
    assert (f"--token {secret}" in text, "for 2 boards within 1 d 0 h" in text) == (not spent, not spent)
    assert "edge-client join --server http://a:1 --token" in text
