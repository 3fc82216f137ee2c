"""A database that could not be read is not taken for a damaged one: the disk is waited for, damage ends the server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.errors import StateError
from aggregator.store.store import Store
from chaos.disk.file_faults import FileFaults, build_library, find_compiler

READING = """
import pathlib, sys
from aggregator.errors import ServerError
from aggregator.store.store import Store
store = Store(pathlib.Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
for _ in range(2):
    try:
        print(store.fact("key"), flush=True)
    except ServerError as error:
        print(type(error).__name__, error.message, flush=True)
"""


WRITING = """
import pathlib, sys
from aggregator.errors import ServerError
from aggregator.store.store import Store
store = Store(pathlib.Path(sys.argv[1]))
with store._database.reading():
    print("open", flush=True)
    sys.stdin.readline()
    with store._database.reading():
        print("a second connection", flush=True)
    sys.stdin.readline()
    for number in range(3):
        try:
            print(store.settle(f"new {number}", "value"), flush=True)
        except ServerError as error:
            print(type(error).__name__, error.message, flush=True)
"""


class Program(subprocess.Popen[str]):
    """A program with this code that uses the database, with faults, and waits at each line that it reads."""

    def __init__(self, code: str, database: Path, faults: FileFaults) -> None:
        environment = {**os.environ, **faults.environment}
        command = [sys.executable, "-c", code, str(database)]
        super().__init__(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        """The next line that it says."""
        assert self.stdout is not None
        return self.stdout.readline().rstrip("\n")

    def go_on(self) -> None:
        """Let it read its line."""
        assert self.stdin is not None
        self.stdin.write("\n")
        self.stdin.flush()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database in which "key" is on a page that opening does not read."""
    folder = tmp_path / "server"
    folder.mkdir()
    store = Store(folder / "braid.db")
    store.settle("key", "value" * 2000)
    store.close()
    return folder / "braid.db"


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler to build the faults with")
def test_a_page_that_cannot_be_read_is_the_disks_fault(tmp_path: Path, database: Path) -> None:
    """It was "damaged: restore the folder from a backup", and the server ended with a status after which nothing starts
    it again (found by `make chaos`)."""
    faults = FileFaults(build_library(tmp_path), database.parent, tmp_path / "control")
    with Program(READING, database, faults) as server:
        assert server.line() == "open"
        faults.fail("EIO", calls=["pread"], path="braid.db", times=1)
        server.go_on()
        said = [server.line() for _ in range(2)]

    assert faults.failed == {("EIO", "pread"): 1}
    assert said == ["DiskError The database could not be read, and is not damaged", "value" * 2000]


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler to build the faults with")
def test_a_connection_from_a_time_without_writing_is_opened_anew(tmp_path: Path, database: Path) -> None:
    """SQLite opens a file that it may not write for reading, and that connection stayed in the pool: after the file
    system was writable again the run still waited for its disk (found by `make chaos`)."""
    faults = FileFaults(build_library(tmp_path), database.parent, tmp_path / "control")
    with Program(WRITING, database, faults) as server:
        assert server.line() == "open"
        faults.fail("EROFS")
        server.go_on()
        assert server.line() == "a second connection"
        faults.heal()
        server.go_on()
        said = [server.line() for _ in range(3)]

    assert faults.failed["EROFS", "open"] >= 1
    assert said[0] == "DiskError The database cannot be used: attempt to write a readonly database"
    assert said[1:] == ["value", "value"]


def test_a_page_with_other_bytes_is_damage(database: Path) -> None:
    store = Store(database)
    data = bytearray(database.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    database.write_bytes(bytes(data))

    with pytest.raises(StateError, match="damaged"):
        store.fact("key")
    store.close()
