"""Adapters cut to a board's ranks, as files: boards of equal plans share one, and a broken download can go on."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from braid_common.atomic_file import make_private_folder, write_atomically
from wire.routes import Held

MAX_CUTS = 64
"""Files kept. Fleets have a handful of plans per version; a board that invents ranks must not fill the disk."""

MAX_CUTS_BYTES = 4 * 1024**3
"""Size of all files together; the newest stays whatever its own."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A file that holds an adapter cut to ranks, or what it differs in from another."""

    path: Path
    digest: str
    size_bytes: int


_Key: TypeAlias = tuple[int, tuple[int, ...], "Held | None"]  # version, ranks, and what a difference is to


class Cuts:
    """The files, by version, ranks, and what a difference is to; the least recently used goes first. Starts empty: all
    can be made again."""

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        for path in folder.iterdir():
            path.unlink()
        self._folder = folder
        self._cuts: OrderedDict[_Key, Cut] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, version: int, ranks: Sequence[int], held: Held | None = None) -> Cut | None:
        """The cut, where it is there. Waits for nobody."""
        key = version, tuple(ranks), held
        with self._lock:
            cut = self._cuts.get(key)
            if cut is not None:
                self._cuts.move_to_end(key)
            return cut

    def drop(self, cut: Cut) -> None:
        """Forget a cut whose file is damaged or gone, under all its names."""
        with self._lock:
            for key in [key for key, each in self._cuts.items() if each == cut]:
                self._drop(key)

    def get(self, version: int, ranks: Sequence[int], make: Callable[[], bytes], held: Held | None = None) -> Cut:
        """The cut, made by `make` where it is not there. Blocks; for one thread at a time."""
        if (cut := self.find(version, ranks, held)) is not None:
            return cut
        data = make()
        digest = hashlib.sha256(data).hexdigest()
        cut = Cut(self._folder / f"{version}-{digest}", digest, len(data))
        write_atomically(cut.path, data)
        with self._lock:
            self._cuts[version, tuple(ranks), held] = cut
            while len(self._cuts) > MAX_CUTS or (len(self._cuts) > 1 and self._size_bytes() > MAX_CUTS_BYTES):
                self._drop(next(iter(self._cuts)))
        return cut

    def _size_bytes(self) -> int:
        return sum({cut.path: cut.size_bytes for cut in self._cuts.values()}.values())

    def forget(self, below: int) -> None:
        """Drop the cuts of old versions."""
        with self._lock:
            for key in [key for key in self._cuts if key[0] < below]:
                self._drop(key)

    def _drop(self, key: _Key) -> None:
        gone = self._cuts.pop(key)
        if all(cut.path != gone.path for cut in self._cuts.values()):
            gone.path.unlink(missing_ok=True)  # a reader that has it open reads on
