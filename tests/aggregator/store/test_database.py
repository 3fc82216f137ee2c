"""A database file that is damaged is noticed at the start; one that is only looked at stays as it is."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.errors import ExitCode, StateError
from aggregator.run.setup import open_run
from aggregator.store.database import Database
from aggregator.store.folder import Folder
from aggregator.store.store import Store
from aggregator.store.tables import MIGRATIONS


@pytest.fixture
def folder(make_folder: Callable[..., Folder]) -> Folder:
    """A stopped server's folder with some rows in most tables."""
    made = make_folder()
    opened = open_run(made, time.monotonic)
    for number in range(3):
        opened.store.enrol(f"{number:032x}", f"board {number}", f"{number:064x}")
    opened.store.add_version(1, "0" * 64)
    opened.store.open_round(1, 1)
    opened.store.close()
    return made


def pages_of(path: Path) -> tuple[int, int]:
    connection = sqlite3.connect(path)
    n_pages, page_bytes = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    connection.close()
    return n_pages, page_bytes


def overwrite(path: Path, page: int, page_bytes: int, filling: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(page * page_bytes)
        file.write(filling)


@pytest.mark.parametrize("filling", ["zeros", "noise", "another page"])
def test_an_overwritten_page_is_noticed_at_the_start(folder: Folder, filling: str) -> None:
    """Whichever it is; the error names the command that says more, and nothing is changed by the try."""
    n_pages, page_bytes = pages_of(folder.database)
    sound = folder.database.read_bytes()
    assert n_pages > 20
    for page in range(1, n_pages):
        data = {
            "zeros": bytes(page_bytes),
            "noise": random.Random(page).randbytes(page_bytes),
            "another page": sound[:page_bytes],
        }[filling]
        overwrite(folder.database, page, page_bytes, data)
        with pytest.raises(StateError, match="damaged") as failed:
            open_run(folder, time.monotonic)
        assert failed.value.exit_code == ExitCode.STATE and "aggregator check" in failed.value.hint
        folder.database.write_bytes(sound)


@pytest.mark.parametrize("harm", ["cut off", "no database", "head"])
def test_a_file_that_is_none_is_noticed(folder: Folder, harm: str) -> None:
    n_pages, page_bytes = pages_of(folder.database)
    data = folder.database.read_bytes()
    folder.database.write_bytes(
        {
            "cut off": data[: (n_pages // 2) * page_bytes],
            "no database": b"not a database at all" * 1000,
            "head": b"\xff" * 100 + data[100:],
        }[harm]
    )
    with pytest.raises(StateError, match="damaged"):
        open_run(folder, time.monotonic)


def test_an_index_that_lacks_rows_is_noticed_by_the_thorough_look(folder: Folder) -> None:
    """A start reads every page; `aggregator check` compares indexes with their tables as well."""
    connection = sqlite3.connect(folder.database)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("CREATE INDEX some ON devices (name)")
    connection.execute("UPDATE sqlite_master SET sql = 'CREATE INDEX some ON devices (device)' WHERE name = 'some'")
    connection.commit()
    connection.close()
    database = Database(folder.database)
    assert not database.damage() and any("some" in line for line in database.damage(is_thorough=True))
    database.close()


def test_reading_alone_writes_nothing(folder: Folder) -> None:
    """Also where the schema is an older one."""
    before = folder.database.read_bytes()
    store = Store(folder.database, is_read_only=True)
    assert len(store.devices()) == 3 and store.damage() == []
    with pytest.raises(Exception, match="readonly"):
        store.open_round(2, 1)
    store.close()
    assert folder.database.read_bytes() == before

    connection = sqlite3.connect(folder.database)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) - 1}")
    connection.close()
    with pytest.raises(StateError, match="older program"):
        Store(folder.database, is_read_only=True)
    assert pages_of(folder.database)


def test_a_start_writes_nothing_into_a_newest_database(folder: Folder) -> None:
    """A disk that is full at the start keeps no server from serving what there is."""
    before = folder.database.read_bytes()
    store = Store(folder.database)
    log = folder.database.with_name("braid.db-wal")
    assert not log.exists() or log.stat().st_size == 0
    store.close()
    assert folder.database.read_bytes() == before
