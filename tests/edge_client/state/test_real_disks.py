"""File systems that are really full, and really read-only: a small one is mounted, where the system lets us.

The same faults by other means, which need no rights: tests/edge_client/agent/faults/test_obstacle.py, and a limit on
the size of files in tests/edge_client/cli/test_bad_input.py.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_client.errors import DiskError
from edge_client.state.folder import StateFolder
from tests.fakes.server import FakeServer

SIZE_BYTES = 4 << 20


class SmallDisk:
    """A file system of SIZE_BYTES at `path`, in memory."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path, self._filler = path, path / "of others" / "filler"
        self._run("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "none", str(path))

    def fill(self) -> None:
        """Write until nothing more fits."""
        self._filler.parent.mkdir(exist_ok=True)
        with pytest.raises(OSError, match="No space left") as caught, self._filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        assert caught.value.errno == errno.ENOSPC

    def empty(self) -> None:
        self._filler.unlink()

    def protect(self) -> None:
        """Make it read-only, as ext4 does on a card that gives errors."""
        self._run("mount", "-o", "remount,ro", str(self.path))
        with pytest.raises(OSError, match="Read-only") as caught:
            (self.path / "probe").touch()
        assert caught.value.errno == errno.EROFS

    def allow(self) -> None:
        self._run("mount", "-o", "remount,rw", str(self.path))

    def remove(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def mounted() -> Iterator[Callable[[Path], SmallDisk]]:
    """Mount small disks; a test that may not is skipped."""
    made: list[SmallDisk] = []

    def mount(path: Path) -> SmallDisk:
        try:
            made.append(SmallDisk(path))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no file system can be mounted here ({error}): root with CAP_SYS_ADMIN is needed")
        return made[-1]

    yield mount
    for disk in reversed(made):
        disk.remove()


@pytest.mark.parametrize(
    ("breaks", "heals", "words"), [("fill", "empty", "no space"), ("protect", "allow", "read-only")]
)
async def test_a_disk_that_breaks_in_mid_run(
    board: Any, server: FakeServer, mounted: Callable[[Path], SmallDisk], breaks: str, heals: str, words: str
) -> None:
    """The folder of unfinished work fills up, or becomes read-only, before the adapter arrives: told once, waited out,
    and the run is finished when it is mended."""
    disk = mounted(board.folder / "work")
    fired: list[str] = []

    async def break_it(_: Any) -> None:
        getattr(disk, breaks)()
        fired.append(breaks)

    async def mend_it(_: Any) -> None:
        if fired == [breaks] and any(words in event["message"] for event in board.events("notice")):
            fired.append("seen")
        elif fired == [breaks, "seen"]:
            getattr(disk, heals)()
            fired.append(heals)

    server.faults["GET /v1/adapters/1"] = [break_it]
    server.faults["GET /v1/work"] = [mend_it] * 99

    await board.join()

    assert fired == [breaks, "seen", heals]
    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]
    assert len([event for event in board.events("notice") if words in event["message"]]) == 1
    assert any("disk is full" in report.text for report in server.reports if report.kind == "event")


def test_a_folder_that_is_read_only_at_the_start(tmp_path: Path, mounted: Callable[[Path], SmallDisk]) -> None:
    """A board that is a device already is locked and known there, and what it writes says what is wrong; a new one says
    so at once."""
    disk = mounted(tmp_path / "disk")
    state = StateFolder(disk.path)
    state.lock()
    state.write("identity.json", b'{"server": "http://server", "install_id": "1", "credential": "c"}')
    state.unlock()
    disk.protect()

    again = StateFolder(disk.path)
    again.lock()
    identity = again.read_identity()
    assert identity is not None and identity.credential == "c" and again.is_locked()
    with pytest.raises(DiskError, match="file system is read-only") as caught:
        again.try_out()
    again.unlock()
    assert "dmesg" in caught.value.hint
    with pytest.raises(DiskError, match="file system is read-only"):
        StateFolder(disk.path / "new").lock()


def test_a_folder_that_is_full_at_the_start(tmp_path: Path, mounted: Callable[[Path], SmallDisk]) -> None:
    """Not even the number of a process fits: the folder is locked all the same, and nothing that was there is lost."""
    disk = mounted(tmp_path / "disk")
    state = StateFolder(disk.path)
    state.lock()
    state.write("install_id", b"1" * 32)
    state.unlock()
    os.truncate(disk.path / "lock", 0)
    disk.fill()

    state.lock()
    with pytest.raises(DiskError, match="no space left"):
        state.write("install_id", b"2" * 32)
    assert state.former_install_id() == "1" * 32 and not list(disk.path.glob(".braid-*"))
    disk.empty()
    state.write("install_id", b"2" * 32)
    state.unlock()
    assert state.former_install_id() == "2" * 32
