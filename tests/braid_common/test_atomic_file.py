"""Files are whole or absent, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from braid_common.atomic_file import sweep_temporaries, write_atomically


def chunks_then_error() -> Iterator[bytes]:
    yield b"half of it"
    raise ConnectionError("the peer went away")


@pytest.mark.parametrize("data", [b"new", bytearray(b"new"), memoryview(b"new"), [b"n", b"e", b"w"], iter([b"new"])])
def test_content_is_replaced(tmp_path: Path, data: bytes) -> None:
    """Bytes in any form, or chunks, become the file's whole content; nothing else is left in the folder."""
    path = tmp_path / "state"
    path.write_bytes(b"something longer than the new content")

    write_atomically(path, data)

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_failing_source_changes_nothing(tmp_path: Path) -> None:
    """A download that breaks off leaves the old file and no temp file; its own error comes through."""
    path = tmp_path / "state"
    path.write_bytes(b"old")

    with pytest.raises(ConnectionError, match="went away"):
        write_atomically(path, chunks_then_error())

    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


@pytest.mark.parametrize("step", ["fsync", "replace", "write"])
def test_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Disk full in write, fsync or rename: OSError, the old file as it was, no temp file."""
    path, fired = tmp_path / "state", []
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        fired.append(step)
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_chunks() -> Iterator[bytes]:
        yield b"x"
        full()

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, full_chunks() if step == "write" else b"new")

    assert fired
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_order_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced before the rename and the folder after it, or a power cut could leave a torn file."""
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "state", b"new")

    assert steps == ["sync file", "rename", "sync folder"]


def test_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    """The folder is not made up."""
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "state", b"new")


def test_sweep_removes_only_temporaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed writer left is removed and counted; other files, hidden ones too, and folders stay."""
    for name in ("state", ".hidden", "x.part"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".braid-folder.part").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self: None)  # a killed process removes nothing
        with pytest.raises(ConnectionError):
            write_atomically(tmp_path / "state", chunks_then_error())
    assert len(list(tmp_path.iterdir())) == 5

    assert sweep_temporaries(tmp_path) == 1
    assert sweep_temporaries(tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".braid-folder.part", ".hidden", "state", "x.part"]
