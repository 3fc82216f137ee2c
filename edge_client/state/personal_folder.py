"""The folder of a board's local strands: a file of them for each run that it takes or took part in, and what the newest
belong to.

    personal/KEY.strands    the strands, fp32 (`edge_client/engines/lean/personal`)
    personal/current.json   run, base and text form of those that are trained now

KEY is a digest of run, base and manifest, so that no strands are ever put on another base, and those of an earlier run
stay as they are. They are the board's own: nothing here is sent, `edge-client leave` leaves them, and only
`edge-client personal forget` removes them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from braid_common.atomic_file import make_private_folder, write_atomically
from braid_common.json_file import read_small
from braid_common.text_form import TextForm
from edge_client.errors import disk_errors
from wire.run import Base, RunInfo

CURRENT = "current.json"

KEY_DIGITS = 16
"""Hex digits of a digest in a file's name: 64 bits tell a board's runs apart."""


class PersonalFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run, base and weights that a file of local strands belongs to.

    Attributes:
        run_id: the run whose global adapter they were trained on.
        base: its base.
        base_folder: where that lay when the board trained.
        manifest: digest of the run's weights.
        form: of the texts.
    """

    run_id: str
    base: Base
    base_folder: str
    manifest: str
    form: TextForm

    @property
    def key(self) -> str:
        """Digest of what must be the same for the strands to mean anything."""
        return _key(self.run_id, self.base.digest, self.manifest)


def strands_key(run: RunInfo) -> str:
    """Digest of what local strands belong to: one run, its base in whatever format it is held, and its weights."""
    return _key(run.run_id, run.base.digest, run.manifest)


@dataclass(frozen=True, slots=True)
class StrandsFile:
    """A file of local strands, and the key that it must have."""

    path: Path
    key: str


class PersonalFolder:
    """The local strands in `path`, which need not be there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_there(self) -> bool:
        """Whether it holds anything, be it damaged."""
        return any(self._path.glob("*"))

    def strands_path(self, key: str) -> Path:
        """The file of the strands with this key."""
        return self._path / f"{key[:KEY_DIGITS]}.strands"

    def file(self, facts: PersonalFacts) -> StrandsFile:
        """The file of the strands that belong to this."""
        return StrandsFile(self.strands_path(facts.key), facts.key)

    def prepare(self, run: RunInfo, base_folder: Path) -> Path:
        """Write what the strands of this run belong to; their file's path. Raises DiskError."""
        facts = PersonalFacts(run.run_id, run.base, str(base_folder), run.manifest, run.settings.text_form)
        path = self._path / CURRENT
        if read_small(path, PersonalFacts) != facts:
            with disk_errors(path):
                make_private_folder(self._path)
                write_atomically(path, msgspec.json.encode(facts))
        return self.strands_path(facts.key)

    def newest(self) -> PersonalFacts | None:
        """The facts of the strands that were trained last; None where there are none (yet)."""
        facts = read_small(self._path / CURRENT, PersonalFacts)
        return facts if facts is not None and self.strands_path(facts.key).is_file() else None

    def forget(self) -> int:
        """Remove the strands of all runs; how many files there were. Raises DiskError."""
        n_files = 0
        with disk_errors(self._path):
            for path in self._path.glob("*"):
                n_files += path.suffix == ".strands"
                path.unlink(missing_ok=True)
        return n_files


def _key(run_id: str, base_digest: str, manifest: str) -> str:
    return hashlib.sha256(f"{run_id} {base_digest} {manifest}".encode()).hexdigest()
