"""What a power cut cannot take: everything that a row names is on the disk before the row is, and the row before the
answer."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from aggregator.store.answers import Answers
from aggregator.store.store import Store
from aggregator.store.uploads import Part, Uploads
from braid_common.atomic_file import make_private_folder

Event = tuple[str, str]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What the disk is asked for, in order: files and folders to be made durable, names, and rows."""
    events: list[Event] = []
    fsync, replace, rows = os.fsync, Path.replace, {"add_received": Answers, "merge_round": Store, "add_version": Store}

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        events.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))

    def replaced(path: Path, target: Path) -> Path:
        events.append(("name", Path(target).name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    for name, owner in rows.items():
        whole = getattr(owner, name)

        def row(store: Store, *arguments: Any, name: str = name, whole: Any = whole) -> Any:
            events.append(("row", name))
            return whole(store, *arguments)

        monkeypatch.setattr(owner, name, row)
    return events


async def test_uploads_and_versions_are_durable_before_their_rows(
    make_folder: Any, start: Any, written: list[Event]
) -> None:
    """An upload before it is answered, a version before boards are told of it."""
    server = await start(make_folder({"rounds.min_devices": 1, "rounds.quorum": 1, "train.targets": ["q"]}))
    board = await server.board("ada")

    written.clear()
    body = board.profile()
    digest = hashlib.sha256(body).hexdigest()
    assert (await board.patch(0, body))[0] == 202
    upload = [("sync", f"{board.device}.0.{digest}"), ("name", digest), ("sync", "blobs"), ("row", "add_received")]
    assert written[:4] == upload

    task = await board.work()
    version = server.opened.store.versions()[1]
    at = written.index(("name", version))
    assert written[at - 1][0] == "sync" and written[at - 1][1].startswith(".braid-")
    assert written[at + 1 : at + 3] == [("sync", "blobs"), ("row", "add_version")]

    written.clear()
    assert (await board.train(task)).accepted and (await board.work(after=1)).spec.round == 2
    at = written.index(("name", server.opened.store.versions()[2]))
    assert written[at + 1 : at + 3] == [("sync", "blobs"), ("row", "merge_round")]


def test_rows_are_durable_when_they_are_written(tmp_path: Path) -> None:
    """SQLite waits for the disk at every commit (2 is FULL), with a log that a power cut in its middle leaves whole."""
    store = Store(tmp_path / "braid.db")
    with store._database.reading() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("synchronous", "journal_mode")
        }
    store.close()
    assert found == {"synchronous": 2, "journal_mode": "wal"}


def test_an_upload_that_could_not_be_made_durable_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After fsync has failed once, asking again proves nothing: Linux counts the pages as written."""
    uploads, fired = Uploads(tmp_path / "uploads"), []
    part = uploads.take("d-ada", 1, "0" * 64, 0)
    part.append(b"whole")
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if fired:
            return fsync(descriptor)
        fired.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        part.finish()
    part.release()

    assert fired and uploads.size("d-ada", 1, "0" * 64) == 0
    again = uploads.take("d-ada", 1, "0" * 64, 0)
    again.append(b"whole")
    assert isinstance(again, Part) and again.finish() == hashlib.sha256(b"whole").hexdigest()


def test_a_new_folder_has_its_name_on_the_disk(tmp_path: Path, written: list[Event]) -> None:
    """Or its files were lost with it."""
    make_private_folder(tmp_path / "blobs")
    assert written == [("sync", tmp_path.name)]
