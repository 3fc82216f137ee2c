"""The adapter that a board keeps from one round to the next, which it then fetches as a patch to it.

An adapter that is damaged, or of another run, is forgotten, and the whole is fetched: that costs traffic and no work.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from braid_common.atomic_file import write_atomically
from braid_common.base.files import file_digest
from edge_client.errors import DiskError, disk_errors
from wire.adapter_patch import START_BYTES, is_patch
from wire.limits import MAX_CONTROL_BYTES
from wire.routes import Held

FULL_EVERY = 8
"""Patches in a row. Each may leave out and round away about 2⁻⁹ of the frozen factors, and that stays so until the
whole comes again; tests/aggregator/downloads/test_patches.py holds what eight of them add up to below 2⁻⁶."""


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The adapter that the file holds, by its version and ranks, and by how many patches in a row it came to be."""

    run_id: str
    version: int
    ranks: tuple[int, ...]
    digest: str  # of the file
    version_digest: str = ""  # as its task named the version
    n_differences: int = 0


class HeldAdapter:
    """The adapter in `folder`, which is for its two files alone."""

    def __init__(self, folder: Path) -> None:
        self.path, self._facts_path = folder / "adapter", folder / "facts"

    def of_run(self, run_id: str) -> Held | None:
        """The version that a patch can be made to. None where there is none, where it is another run's or damaged, or
        where it is time for the whole."""
        facts = self._facts()
        if facts is None or facts.run_id != run_id or facts.n_differences >= FULL_EVERY:
            return None
        try:
            is_sound = file_digest(self.path) == facts.digest
        except OSError:
            is_sound = False
        return Held(facts.version, facts.ranks, facts.version_digest) if is_sound else None

    def sound_file(self, run_id: str) -> Path | None:
        """The file that is held of a run, where it is whole and sound."""
        facts = self._facts()
        if facts is None or facts.run_id != run_id:
            return None
        try:
            return self.path if file_digest(self.path) == facts.digest else None
        except OSError:
            return None

    def keep(self, adapter: Path, run_id: str, version: int, ranks: Sequence[int], version_digest: str = "") -> None:
        """Take over a file that the round is done with; one that was never made whole stays where it is.

        It came as a patch if anything is held still, for `forget` is called when a whole adapter has arrived.
        """
        if not adapter.exists() or starts_as_difference(adapter):
            return
        before = self._facts()
        n_differences = before.n_differences + 1 if before is not None else 0
        try:
            with disk_errors(self.path):
                digest = file_digest(adapter)
                facts = _Facts(run_id, version, tuple(ranks), digest, version_digest, n_differences)
                adapter.replace(self.path)
                write_atomically(self._facts_path, msgspec.json.encode(facts))
        except DiskError:
            self.forget()

    def forget(self) -> None:
        """Remove the adapter that is kept."""
        for path in (self._facts_path, self.path):
            with suppress(OSError):
                path.unlink()

    def needed_for(self, adapter: Path) -> str:
        """The path of the file that a fetched patch changes; "" where the fetched one is whole, or not there."""
        return str(self.path) if adapter.exists() and starts_as_difference(adapter) else ""

    def give_up(self, adapter: Path) -> bool:
        """Drop a patch that could not be used, and the adapter it changes, so that the whole is fetched; True if there
        was one."""
        if not adapter.exists() or not starts_as_difference(adapter):
            return False
        self.forget()
        with disk_errors(adapter):
            adapter.unlink()
        return True

    def _facts(self) -> _Facts | None:
        try:
            data = self._facts_path.read_bytes()
            return msgspec.json.decode(data, type=_Facts) if len(data) <= MAX_CONTROL_BYTES else None
        except (OSError, ValueError):  # what msgspec raises, UnicodeDecodeError among it, are ValueErrors
            return None


def starts_as_difference(adapter: Path) -> bool:
    """Whether a file that was fetched is an AdapterPatch. Reads its first bytes alone. Raises DiskError."""
    with disk_errors(adapter), adapter.open("rb") as file:
        return is_patch(file.read(START_BYTES))
