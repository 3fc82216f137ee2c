"""Uploads that have not arrived in full: one file per device, round and digest, which can be added to at its end."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from braid_common.atomic_file import make_private_folder, open_private
from braid_common.base.files import file_digest

_PART = re.compile(r"(?P<device>[0-9a-z-]+)\.(?P<round>\d+)\.(?P<digest>[0-9a-f]{64})\Z")


class OffsetError(Exception):
    """The sender continues at another place than the file ends. `offset` is where it ends."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload has {offset} bytes")
        self.offset = offset


class SupersededError(Exception):
    """Another request of the same device has taken the upload over: this one's connection was given up."""


class Part:
    """One unfinished upload, held by the last request that opened it."""

    def __init__(self, path: Path, holders: dict[Path, Part]) -> None:
        self.path = self._path = path
        self._holders = holders
        holders[path] = self

    @property
    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end. Raises SupersededError, and adds nothing, when another request holds the upload."""
        self._need_hold()
        with open(self._path, "ab", opener=open_private) as file:
            file.write(chunk)

    def finish(self) -> str:
        """Make the file durable; return the SHA-256 of what is in it. Blocks for as long as reading takes.

        Raises SupersededError as `append` does. Where the disk refuses, all has to be sent again: the system may count
        what it could not write as written, and say so if it is asked once more.
        """
        self._need_hold()
        try:
            descriptor = os.open(self._path, os.O_RDWR)
        except FileNotFoundError as error:  # an older request was whole as well, and quicker
            raise SupersededError(self._path.name) from error
        try:
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self.discard()
            raise
        finally:
            os.close(descriptor)
        return file_digest(self._path)

    def _need_hold(self) -> None:
        if self._holders.get(self._path) is not self:
            raise SupersededError(self._path.name)

    def discard(self) -> None:
        """Remove the file, unless another request holds it now."""
        if self._holders.get(self._path) is self:
            self._path.unlink(missing_ok=True)

    def release(self) -> None:
        if self._holders.get(self._path) is self:
            del self._holders[self._path]


class Uploads:
    """The folder of unfinished uploads. A device has one at a time, so that it cannot fill the disk with many."""

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._holders: dict[Path, Part] = {}
        self._of_device: dict[str, set[Path]] = {}  # files that may be there; to list the folder takes long for a fleet
        for path in folder.iterdir():
            self._of_device.setdefault(path.name.partition(".")[0], set()).add(path)

    def size(self, device: str, round_id: int, digest: str) -> int:
        """Bytes that have arrived."""
        path = self._path(device, round_id, digest)
        return path.stat().st_size if path.exists() else 0

    def take(self, device: str, round_id: int, digest: str, offset: int) -> Part:
        """Hold an upload in order to continue it at `offset`. Raises OffsetError where that is not its end.

        An older request that still holds it is superseded; the device's other unfinished uploads are removed.
        """
        path = self._path(device, round_id, digest)
        if (size := self.size(device, round_id, digest)) != offset:
            raise OffsetError(size)
        for other in self._of_device.get(device, set()) - {path}:
            other.unlink(missing_ok=True)
            self._holders.pop(other, None)
        self._of_device[device] = {path}
        return Part(path, self._holders)

    def sweep(self, rounds: Collection[int]) -> int:
        """Remove all but those of these rounds; the number removed."""
        removed = 0
        for path in self._folder.iterdir():
            match = _PART.match(path.name)
            if match is None or int(match["round"]) not in rounds:
                path.unlink()
                self._holders.pop(path, None)
                removed += 1
        return removed

    def _path(self, device: str, round_id: int, digest: str) -> Path:
        return self._folder / f"{device}.{round_id}.{digest}"
