"""Updates as they lie on the disk, read a few weights at a time.

A round's updates together may be much larger than memory. What is kept of each here is where its parts lie.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from aggregator.errors import StateError
from aggregator.store.blobs import Blobs
from wire.messages import Update, UpdatePart

_PARTS = msgspec.msgpack.Decoder(UpdatePart)
"""Reads a part of a message that was decoded as strangers' bytes are (`wire.codec`) when it was accepted."""

_HINT = "Restore the folder from a backup."


class _Raw(msgspec.Struct):
    """An update whose parts are not looked into. Its types were checked when it was accepted."""

    protocol: int
    run_id: str
    round: int
    version: int
    manifest: str
    n_examples: int
    parts: list[msgspec.Raw]
    version_digest: str = ""


class _Named(msgspec.Struct):
    """The one field of a part by which it is found."""

    name: str


_UPDATES, _NAMES = msgspec.msgpack.Decoder(_Raw), msgspec.msgpack.Decoder(_Named)


@dataclass(frozen=True, slots=True, eq=False)
class UpdateFile:
    """An accepted update on the disk.

    Attributes:
        path: of the file.
        head: all of the update but its parts.
        index: the place of each weight in the manifest.
        places: (weights, 2) int64, where the bytes of each weight's part begin and end, in manifest order; (0, 0) of a
            weight that it has no part of.
    """

    path: Path
    head: Update
    index: Mapping[str, int]
    places: NDArray[np.int64]

    @classmethod
    def open(cls, blobs: Blobs, digest: str, index: Mapping[str, int]) -> UpdateFile:
        """Look for the parts of an update that was accepted. Raises StateError where it is missing or damaged."""
        data = blobs.get(digest)
        try:
            raw = _UPDATES.decode(data)
            places = np.zeros((len(index), 2), np.int64)
            for part in raw.parts:
                start = _address(part) - _address(data)
                name = _NAMES.decode(part).name
                places[index[name]] = start, start + memoryview(part).nbytes
        except (ValueError, KeyError) as error:  # msgspec's errors are ValueErrors; a weight that is none of the run's
            raise StateError(f"{blobs.path(digest)} is no update of this run: {error}", _HINT) from error
        fields = {name: getattr(raw, name) for name in _Raw.__struct_fields__}
        return cls(blobs.path(digest), Update(**{**fields, "parts": ()}), index, places)

    def read(self, names: Sequence[str]) -> Update:
        """The update with the parts of these weights alone. Raises StateError where they cannot be read any more."""
        found = [place for name in names if (place := self.places[self.index[name]])[1]]
        if not found:
            return self.head
        first, last = min(int(start) for start, _ in found), max(int(end) for _, end in found)
        try:
            data = _read(self.path, first, last - first)
            parts = tuple(_PARTS.decode(data[start - first : end - first]) for start, end in found)
        except ValueError as error:  # msgspec's errors are some
            raise StateError(f"{self.path} has changed since it was checked: {error}", _HINT) from error
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENOENT):
                raise
            raise StateError(f"{self.path} cannot be read: {error.strerror}", _HINT) from error
        return msgspec.structs.replace(self.head, parts=parts)


def _read(path: Path, offset: int, length: int) -> memoryview:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return memoryview(os.pread(descriptor, length, offset))
    finally:
        os.close(descriptor)


def _address(buffer: bytes | msgspec.Raw) -> int:
    """The place of a buffer in memory: a part of a message is a view into the whole."""
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)
