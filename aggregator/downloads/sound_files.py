"""Files that boards download under a digest: whether their bytes are still those of it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from pathlib import Path
from typing import TypeAlias

from braid_common.base.files import file_digest

MAX_KNOWN = 1024
"""Files that are remembered: more than a base and all cuts together. One that was forgotten is read again."""

Looks: TypeAlias = tuple[int, int]
"""The size of a file, and when it changed last (ctime, which nobody sets), in ns."""

log = logging.getLogger("aggregator")


class SoundFiles:
    """Knows which files were read and found sound, as they look now. One that looks otherwise is read again, once at a
    time, beside the event loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[Path, Looks] = OrderedDict()
        self._reading: dict[Path, asyncio.Lock] = {}

    def trust(self, path: Path, looks: Looks) -> None:
        """Take a file as sound as long as it looks so."""
        self._known[path] = looks
        self._known.move_to_end(path)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def doubt(self, path: Path, what: str) -> None:
        """Forget that a file was sound: it is read before it is sent again. `what` was seen, for the log."""
        self._known.pop(path, None)
        log.error("%s %s", path, what)

    async def is_sound(self, path: Path, digest: str) -> bool:
        """Whether a file is there and has this digest."""
        if self._is_known(path):
            return True
        reading = self._reading.setdefault(path, asyncio.Lock())
        try:
            async with reading:
                return self._is_known(path) or await asyncio.to_thread(self._read, path, digest)
        finally:
            if not reading.locked():
                self._reading.pop(path, None)

    def _is_known(self, path: Path) -> bool:
        known = self._known.get(path)
        try:
            return known is not None and known == looks_of(path)
        except OSError:
            return False

    def _read(self, path: Path, digest: str) -> bool:
        try:
            looks = looks_of(path)
            found = file_digest(path)
        except OSError as error:
            self.doubt(path, f"cannot be read: {error.strerror}")
            return False
        if found != digest:
            self.doubt(path, "is damaged: its SHA-256 is another than it was")
            return False
        self.trust(path, looks)
        return True


def looks_of(path: Path) -> Looks:
    """The looks of a file. Raises OSError."""
    found = path.stat()
    return found.st_size, found.st_ctime_ns
