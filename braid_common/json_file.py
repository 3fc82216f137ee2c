"""Small JSON files of the state folder, which nothing is lost without."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


def read_small(path: Path, kind: type[T]) -> T | None:
    """What the file holds; None where it is missing, damaged, or of another version's kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError):  # what msgspec raises, UnicodeDecodeError among it, are ValueErrors
        return None
