"""Small JSON files that may be missing or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


def read_small(path: Path, kind: type[T]) -> T | None:
    """The file's content as `kind`; None where it is missing, damaged, or written by another version."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError):  # what msgspec raises, UnicodeDecodeError among it, are ValueErrors
        return None
