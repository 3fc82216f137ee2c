"""The layer under a process: calls of Python and SQLite fail, or kill, where they were told to, and nowhere else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.disk.file_faults import CALLS, ERRORS, FAILING, Call, Error, FileFaults, build_library, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler to build the faults with")

DOING = """
import errno, os, pathlib, sqlite3, sys
folder = pathlib.Path(sys.argv[1])
what = sys.argv[2]
if what not in ("file", "database"):
    descriptor = os.open(folder / "there", os.O_RDWR)
def database():
    connection = sqlite3.connect(folder / "rows.db", timeout=0.1)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    return connection.execute("SELECT count(*) FROM t").fetchone()
doings = {
    "open": lambda: os.close(os.open(folder / "new", os.O_WRONLY | os.O_CREAT)),
    "write": lambda: os.write(descriptor, b"12345678"),
    "pwrite": lambda: os.pwrite(descriptor, b"12345678", 2),
    "fsync": lambda: os.fsync(descriptor),
    "fdatasync": lambda: os.fdatasync(descriptor),
    "rename": lambda: (folder / "there").replace(folder / "then"),
    "mkdir": lambda: (folder / "sub").mkdir(),
    "unlink": lambda: (folder / "there").unlink(),
    "ftruncate": lambda: os.ftruncate(descriptor, 1),
    "read": lambda: os.read(descriptor, 3),
    "pread": lambda: os.pread(descriptor, 3, 0),
    "file": lambda: (folder / "more").write_bytes(b"more"),
    "database": database,
}
try:
    said = doings[what]()
except sqlite3.OperationalError as error:
    said = error
except OSError as error:
    said = errno.errorcode[error.errno]
print(said)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of 8 bytes and a database of one table."""
    made = tmp_path / "files"
    made.mkdir()
    (made / "there").write_bytes(b"abcdefgh")
    text = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE t (n INT)').connection.commit()"
    subprocess.run([sys.executable, "-c", text, str(made / "rows.db")], check=True)
    return made


@pytest.fixture
def faults(library: Path, folder: Path, tmp_path: Path) -> FileFaults:
    return FileFaults(library, folder, tmp_path / "control")


def do(what: str, folder: Path, faults: FileFaults) -> tuple[int, str]:
    """What a fresh Python says when it does one thing on its files."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", DOING, str(folder), what],
        env=faults.environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout.strip() or done.stderr


@pytest.mark.parametrize("call", CALLS)
def test_each_call_fails_as_told(folder: Path, faults: FileFaults, call: Call) -> None:
    """Python's own call gets the error, once; nothing but that call was counted."""
    faults.fail("EIO", calls=[call], path="new" if call == "open" else "", times=1)

    assert do(call, folder, faults) == (0, "EIO")
    assert faults.failed == {("EIO", call): 1}

    faults.heal()
    assert "E" not in do(call, folder, faults)[1]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("what", ["file", "database"])
def test_files_and_databases_meet_every_error(folder: Path, faults: FileFaults, error: Error, what: str) -> None:
    """What Python's files and SQLite do goes through the layer: they say what happened, and the counts do too."""
    faults.fail(error)
    code, said = do(what, folder, faults)

    assert code == 0
    assert said == error if what == "file" else any(word in said for word in ("disk", "readonly", "open"))
    assert faults.failed.total() > 0 and {found for found, _ in faults.failed} == {error}
    assert {call for _, call in faults.failed} <= set(FAILING[error])


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "pread"])
def test_the_calls_of_sqlite_are_caught(folder: Path, faults: FileFaults, call: Call) -> None:
    """SQLite's own calls: pages are written, made durable and read through the layer."""
    faults.fail("EIO", calls=[call])

    assert "disk I/O error" in do("database", folder, faults)[1]
    assert faults.failed["EIO", call] > 0


def test_other_folders_are_left_alone(folder: Path, faults: FileFaults, tmp_path: Path) -> None:
    """Also one whose name begins as the folder's does."""
    other = tmp_path / "files-too"
    folder.rename(other)
    folder.mkdir()
    faults.fail("EIO")
    faults.kill(calls=CALLS)

    assert do("database", other, faults) == (0, "(1,)")
    assert not faults.failed and not faults.killed


def test_faults_are_drawn_by_seed(folder: Path, faults: FileFaults) -> None:
    """The same seed fails the same of many calls, another one others; none is drawn beyond `times`."""

    def failures(seed: int) -> int:
        before = faults.failed.total()
        faults.fail("EIO", chance=0.3, seed=seed, calls=["pwrite", "pread", "fdatasync"])
        text = do("database", folder, faults)[1]
        return faults.failed.total() - before if "error" in text else 0

    assert failures(1) == failures(1)
    assert len({failures(seed) for seed in range(8)}) > 1


@pytest.mark.parametrize(("call", "path"), [("pwrite", "-wal"), ("fdatasync", "-wal")])
def test_a_process_is_killed_at_a_named_point(folder: Path, faults: FileFaults, call: Call, path: str) -> None:
    """SIGKILL at SQLite's log; the next process goes on with all that was committed."""
    do("database", folder, faults)
    faults.kill(calls=[call], path=path)

    assert do("database", folder, faults)[0] == -signal.SIGKILL
    assert faults.killed == {call: 1}
    assert do("database", folder, faults) in ((0, "(2,)"), (0, "(3,)"))  # the killed one's row is there or not


def test_who_is_killed_writing_has_written_half(folder: Path, faults: FileFaults) -> None:
    faults.kill(calls=["write"], path="there")

    assert do("write", folder, faults)[0] == -signal.SIGKILL
    assert (folder / "there").read_bytes() == b"1234efgh"


def test_the_nth_call_kills(folder: Path, faults: FileFaults) -> None:
    """Calls before the n-th are made."""
    faults.kill(calls=["fdatasync", "pwrite"], at=4)

    assert do("database", folder, faults)[0] == -signal.SIGKILL
    assert faults.killed.total() == 1
    faults.kill(calls=["fdatasync"], at=50)
    assert do("database", folder, faults)[0] == 0
