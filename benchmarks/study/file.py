"""A benchmark's study in a file that follows every run, so that an interruption loses one run at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from braid_common.atomic_file import write_atomically


class StudySoFar(msgspec.Struct, frozen=True, kw_only=True):
    """What every study has. `settings`: what all of its runs share."""

    machine: str
    settings: Any
    runs: tuple[Any, ...] = ()


S = TypeVar("S", bound=StudySoFar)


class Store(Generic[S]):
    """A study, and the file that follows it.

    Args: path, None to keep nothing; study, as it is before the first run. Raises SystemExit where the file holds a
    study of other settings.
    """

    def __init__(self, path: Path | None, study: S) -> None:
        self._path = path
        self.study = study
        if path is not None and path.exists():
            found = msgspec.json.decode(path.read_bytes(), type=type(study))
            if found.settings != study.settings:
                raise SystemExit(f"{path} holds a study of other settings: remove it or name another file")
            self.study = found

    def add(self, run: Any) -> None:
        """Keep one more run."""
        self.keep(runs=(*self.study.runs, run))

    def keep(self, **changes: Any) -> None:
        """Keep the study with other values of some fields."""
        self.study = msgspec.structs.replace(self.study, **changes)
        if self._path is not None:
            write_atomically(self._path, msgspec.json.format(msgspec.json.encode(self.study)))
