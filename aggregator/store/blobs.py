"""Blobs: immutable files named by the SHA-256 of their bytes, written before the database row that names them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Set
from pathlib import Path

from aggregator.errors import StateError
from braid_common.atomic_file import make_private_folder, sweep_temporaries, sync_folder, write_atomically

_NAME = re.compile(r"[0-9a-f]{64}\Z")


class Blobs:
    """A folder of blobs. Methods block; every file appears whole or not at all, whenever the power goes."""

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._folder = folder

    def path(self, digest: str) -> Path:
        if not _NAME.match(digest):
            raise ValueError(f"{digest!r} is no digest")
        return self._folder / digest

    def put(self, data: bytes) -> str:
        """Store `data`; return its digest. Stored twice is stored once."""
        digest = hashlib.sha256(data).hexdigest()
        if not self.path(digest).exists():
            write_atomically(self.path(digest), data)
        return digest

    def adopt(self, file: Path, digest: str) -> None:
        """Move a closed, fsynced file of this digest, on the same file system, in among the blobs."""
        file.replace(self.path(digest))
        sync_folder(self._folder)

    def get(self, digest: str) -> bytes:
        """The blob's bytes, checked. Raises StateError where it is missing or damaged."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError as error:
            raise _lost(self.path(digest), "is missing") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise _lost(self.path(digest), "is damaged (its SHA-256 is not its name)")
        return data

    def sweep(self, keep: Set[str]) -> int:
        """Remove temp files and blobs that no row names; the number removed. Only while nobody writes."""
        removed = sweep_temporaries(self._folder)
        for path in self._folder.iterdir():
            if _NAME.match(path.name) and path.name not in keep:
                path.unlink()
                removed += 1
        return removed


def _lost(path: Path, what: str) -> StateError:
    return StateError(f"{path} {what}.", "Restore the folder from a backup, or start a new run with `aggregator init`.")
