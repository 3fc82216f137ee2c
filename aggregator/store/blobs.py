"""Blobs: immutable files named by the SHA-256 of their bytes, written before the database row that names them."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path

from aggregator.errors import StateError
from braid_common.atomic_file import make_private_folder, sweep_temporaries, sync_folder, write_atomically
from braid_common.base.files import file_digest

_NAME = re.compile(r"[0-9a-f]{64}\Z")


class Blobs:
    """A folder of blobs. Methods block; every file appears whole or not at all, whenever the power goes.

    Args:
        folder: where they lie.
        quarantine: where damaged ones are put aside, for people; made when it is needed.
    """

    def __init__(self, folder: Path, quarantine: Path | None = None) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._quarantine = folder.with_name("quarantine") if quarantine is None else quarantine

    def path(self, digest: str) -> Path:
        if not _NAME.match(digest):
            raise ValueError(f"{digest!r} is no digest")
        return self._folder / digest

    def put(self, data: bytes) -> str:
        """Store `data`; return its digest. Stored twice is stored once."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        if not path.exists() or path.read_bytes() != data:
            write_atomically(path, data)
        return digest

    def adopt(self, files: Mapping[str, Path]) -> None:
        """Move closed, fsynced files on the same file system, by their digests, in among the blobs."""
        for digest, file in files.items():
            file.replace(self.path(digest))
        sync_folder(self._folder)

    def get(self, digest: str) -> bytes:
        """The blob's bytes, checked. Raises StateError where it is missing or damaged."""
        with _readable(self.path(digest)):
            data = self.path(digest).read_bytes()
        self._require(digest, hashlib.sha256(data).hexdigest())
        return data

    def check(self, digest: str) -> None:
        """Raise StateError where the blob is missing or damaged. Reads it in pieces."""
        with _readable(self.path(digest)):
            found = file_digest(self.path(digest))
        self._require(digest, found)

    def drop(self, digest: str) -> None:
        """Remove a blob that no row names any more."""
        self.path(digest).unlink(missing_ok=True)

    def set_aside(self, digest: str) -> None:
        """Move a damaged blob out of the way, to where people may look at it; nothing where it is missing."""
        path = self.path(digest)
        if path.exists():
            self._quarantine.mkdir(parents=True, exist_ok=True)
            path.replace(self._quarantine / digest)

    def _require(self, digest: str, found: str) -> None:
        if found != digest:
            raise _lost(self.path(digest), "is damaged (its SHA-256 is not its name)")

    def sweep(self, keep: Set[str]) -> int:
        """Remove temp files and blobs that no row names; the number removed. Only while nobody writes."""
        removed = sweep_temporaries(self._folder)
        for path in self._folder.iterdir():
            if _NAME.match(path.name) and path.name not in keep:
                path.unlink()
                removed += 1
        return removed


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise StateError for a file that is missing or lies where the disk cannot read. Other errors say nothing about
    the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise _lost(path, "is missing") from error
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise _lost(path, "cannot be read (the disk reports an error)") from error


def _lost(path: Path, what: str) -> StateError:
    return StateError(f"{path} {what}.", "Restore the folder from a backup, or start a new run with `aggregator init`.")
