"""Small files of the system, such as those of /proc and /sys: read as far as they are there. Standard library only."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """The file's text, "" where there is none or it is not ours to read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def read_number(path: Path, base: int = 10) -> int | None:
    """The whole number in a file; None where there is none, it is not ours to read, or a chip is busy or off."""
    try:
        return int(path.read_text(), base)
    except (OSError, ValueError):
        return None
