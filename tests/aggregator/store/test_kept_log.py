"""The log of a database outlives every way in which opening the database can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.store.kept_log import kept_log
from aggregator.store.store import Store
from chaos.disk.file_faults import FileFaults, build_library, find_compiler

WRITING = """
import os, pathlib, signal, sys
from aggregator.store.store import Store
Store(pathlib.Path(sys.argv[1])).settle("key", "value")
os.kill(os.getpid(), signal.SIGKILL)
"""

OPENING = """
import pathlib, sys
from aggregator.errors import DiskError
from aggregator.store.store import Store
try:
    Store(pathlib.Path(sys.argv[1])).close()
except DiskError as error:
    print(error.message)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler to build the faults with")
def test_a_start_on_a_failing_disk_loses_nothing(tmp_path: Path) -> None:
    """A server is killed; the next start meets two errors of SQLite's shared-memory file, and the one after that has
    all that was stored. It had nothing: SQLite had removed its log (found by `make chaos`)."""
    folder = tmp_path / "server"
    folder.mkdir()
    database = folder / "braid.db"
    assert _run(WRITING, database, {}).returncode == -signal.SIGKILL
    faults = FileFaults(build_library(tmp_path), folder, tmp_path / "control")

    faults.fail("EIO", calls=["open", "ftruncate"], path="-shm", chance=0.5, times=2, seed=0)
    failed = _run(OPENING, database, faults.environment)

    assert "disk I/O error" in failed.stdout
    assert faults.failed == {("EIO", "ftruncate"): 1, ("EIO", "open"): 1}
    again = Store(database)
    assert again.fact("key") == "value"
    again.close()


def _run(text: str, database: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", text, str(database)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "braid.db-wal"


def test_nothing_is_left_of_an_opening_that_succeeded(tmp_path: Path, log: Path) -> None:
    log.write_bytes(b"log")

    with kept_log(tmp_path / "braid.db"):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["braid.db-wal", "braid.db-wal.kept"]

    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.parametrize("removed", [True, False])
def test_a_log_that_an_opening_removed_is_there_again(tmp_path: Path, log: Path, removed: bool) -> None:
    """Where the opening that failed left it, it stays as it is."""
    log.write_bytes(b"log")
    with pytest.raises(ZeroDivisionError), kept_log(tmp_path / "braid.db"):
        if removed:
            log.unlink()
        raise ZeroDivisionError

    with kept_log(tmp_path / "braid.db"):
        assert log.read_bytes() == b"log"
    assert list(tmp_path.iterdir()) == [log]


def test_without_a_log_there_is_nothing_to_keep(tmp_path: Path) -> None:
    with kept_log(tmp_path / "braid.db"):
        assert not list(tmp_path.iterdir())
