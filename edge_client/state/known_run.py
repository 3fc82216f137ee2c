"""The run that a board takes part in, as it knew it last, and the rules by which the server's word of it is believed.

The rules are pure, as those of TUF's clients are (python-tuf, `TrustedMetadataSet`): what is known goes in with what
the server says now, and what comes out is known from then on, or an error.

Base and manifest never change: another base would train on numbers that look right. Versions are a chain, so that a
server cannot take back one of them unseen. But one that was restored from a backup has to go back, and goes on from
there; so a history that is not the known one is told, and not refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from braid_common.json_file import read_small
from edge_client.errors import BaseModelError, RefusedError
from edge_client.state.folder import StateFolder
from wire.messages import Version
from wire.proof import empty_history, next_history
from wire.run import RunInfo

FILE = "run.json"

_HINT = (
    "ask whoever runs the server; where it is a new run on purpose, `edge-client leave` and join again. "
    "If nobody knows of it, somebody has changed the server"
)


class KnownRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run by what never changes of it, and by its newest version that this board knows."""

    run_id: str
    base: str
    manifest: str
    version: int
    history: str

    @classmethod
    def beginning(cls, run: RunInfo) -> KnownRun:
        """The run of an answer, before any of its versions."""
        base = run.base.digest
        return cls(run.run_id, base, run.manifest, 0, empty_history(run.run_id, base, run.manifest))


def require_same_run(known: KnownRun, run: RunInfo) -> None:
    """Raise BaseModelError or RefusedError where the server's run is another one than the board takes part in."""
    if run.run_id != known.run_id:
        raise RefusedError(f"the server's run is {run.run_id} now, this board takes part in {known.run_id}", _HINT)
    if run.base.digest != known.base:
        raise BaseModelError(
            f"the server's base is another one now ({run.base.digest[:12]}…) than this run has ({known.base[:12]}…)",
            _HINT,
        )
    if run.manifest != known.manifest:
        raise RefusedError(f"the server now trains other weights than run {known.run_id} does", _HINT)


def with_versions(known: KnownRun, run: RunInfo, since: Sequence[Version]) -> tuple[KnownRun, str]:
    """The known run after an answer about it, and a sentence where its history is not the one that was known.

    Args:
        known: what was known before.
        run: the server's answer.
        since: the versions after the known one, as the server says.
    """
    history = known.history
    for version in since:
        if version.version <= run.version:
            history = next_history(history, version.version, version.digest)
    after = msgspec.structs.replace(known, version=run.version, history=run.history)
    if run.version < known.version:
        what = f"the server went back to version {run.version}, this board knows version {known.version}"
        return after, f"{what}: was it restored from a backup?"
    if run.history != history:
        return (
            after,
            f"version {run.version} of the server does not follow version {known.version} that this board knows",
        )
    return after, ""


def read_known_run(folder: StateFolder) -> KnownRun | None:
    """The run as it was known last; None where nothing is known, or what is cannot be read."""
    return read_small(Path(folder.path) / FILE, KnownRun)


def is_damaged(folder: StateFolder) -> bool:
    """Whether there is a file, and nothing can be made of it."""
    return (folder.path / FILE).exists() and read_known_run(folder) is None


def write_known_run(folder: StateFolder, known: KnownRun) -> None:
    """Keep it, for good. Raises DiskError."""
    folder.write(FILE, msgspec.json.encode(known))
