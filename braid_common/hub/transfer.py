"""Large files of the hub, resumed where they broke off: within a call, and in a later process.

huggingface_hub (since 1.0 or so) writes each attempt to a file of a random name, and removes it when the attempt fails:
ten gigabytes that break off at nine begin anew. So a large file is written here, next to its place in the library's
cache, checked against the SHA-256 that the hub has told, and renamed to where the library looks for it.
"""

from __future__ import annotations

import fcntl
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from braid_common.base.files import file_digest
from braid_common.hub.errors import HubDiskError, HubError, HubUnreachableError
from braid_common.hub.library import HubFile, read_into
from braid_common.hub.model_id import HubId
from braid_common.hub.progress import Progress

PARTIAL_SUFFIX = ".braid-part"

PAUSES_S = (2.0, 5.0, 15.0, 30.0, 60.0)
"""Waits between attempts that brought nothing, each begun anew when bytes came: two minutes of outage are sat out.
The library itself tries five times within each."""


def part_of(target: Path) -> Path:
    """The place of what has come of a file so far."""
    return target.with_name(target.name + PARTIAL_SUFFIX)


def size_here(target: Path) -> int:
    """Bytes of a file that need not be fetched any more."""
    for path in (target, part_of(target)):
        if path.is_file():
            return path.stat().st_size
    return 0


def fetch_large(
    model: HubId,
    file: HubFile,
    target: Path,
    progress: Progress,
    moved: Callable[[int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Put a file's bytes at `target`, going on from what an earlier attempt has left. `moved` hears its bytes so far.

    Raises HubError where its bytes are not those that the hub names, HubUnreachableError where the hub stays away,
    HubDiskError. What has come stays for the next attempt.
    """
    with _disk_errors(target), _opened(target, moved, progress) as writer:
        if writer is None:  # another process was quicker
            return
        _read_all(model, file, writer, progress, sleep)
        writer.flush()
        os.fsync(writer.fileno())
        part = part_of(target)
        if file_digest(part) != file.digest:
            part.unlink()
            raise HubError(
                f"{file.name} of {model.shown} came damaged: its SHA-256 is not the one that the hub names",
                "try again; if it stays, a proxy on the way changes what it passes on",
            )
        part.replace(target)


class _Counted(io.BufferedWriter):
    """A file to go on writing, which tells how long it is."""

    def __init__(self, descriptor: int, moved: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(descriptor, "r+"))
        self._moved = moved
        self.seek(0, os.SEEK_END)

    def write(self, data: bytes) -> int:  # type: ignore[override] # the library writes bytes alone
        written = super().write(data)
        self._moved(self.tell())
        return written

    def empty(self) -> None:
        """Begin anew."""
        self.seek(0)
        self.truncate()


def _read_all(
    model: HubId, file: HubFile, writer: _Counted, progress: Progress, sleep: Callable[[float], None]
) -> None:
    """Read until the file is whole, with pauses after breaks. Raises HubUnreachableError when the last one is over."""
    pauses = iter(PAUSES_S)
    while (before := writer.tell()) != file.size_bytes:
        broken: HubUnreachableError | None = None
        try:
            read_into(model, file.name, writer, file.size_bytes)
        except HubUnreachableError as error:
            broken = error
        if writer.tell() == file.size_bytes:
            return
        if writer.tell() > file.size_bytes:  # a server that sent all of it where the rest was asked for
            writer.empty()
        if writer.tell() > before:
            pauses = iter(PAUSES_S)
        pause_s = next(pauses, None)
        if pause_s is None:
            raise broken or HubUnreachableError(
                f"{file.name} of {model.shown} never comes in the size that the hub names", "try again later", "size"
            )
        reason = broken.reason if broken else "another size than the hub names"
        progress.say(f"{file.name} broke off ({reason}); going on in {pause_s:.0f} s")
        sleep(pause_s)


@contextmanager
def _opened(target: Path, moved: Callable[[int], None], progress: Progress) -> Iterator[_Counted | None]:
    """The partial file, locked against other processes and open at its end; None once the whole file is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part, waits = part_of(target), False
    while not target.is_file():
        with _Counted(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), moved) as writer:
            try:
                fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waits:
                    progress.say("another process fetches the same file; waiting for it")
                waits = True
                fcntl.flock(writer, fcntl.LOCK_EX)
            if not _is_at(writer, part):  # who held it before has renamed or removed what we opened
                continue
            if target.is_file():
                part.unlink()
                break
            yield writer
            return
    yield None


def _is_at(file: io.BufferedWriter, path: Path) -> bool:
    """Whether the open file is the one that the path names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HubDiskError(
            f"the hub's cache {target.parent} cannot be written: {error.strerror or error}",
            "free some space, or set HF_HOME to a folder of yours on another disk",
        ) from error
