"""Folders of inputs: those in the repository, those that a run has added, and those that are finds now."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The repository."""

CORPUS = ROOT / "fuzz" / "corpus"
"""Folders of inputs by target: honest ones, those that reach code which no other does, and those that were finds."""

WORK = ROOT / ".fuzz" / "grown"
"""Inputs that runs on this machine have added to those of the corpus; the next run begins with them as well."""

FOUND = ROOT / ".fuzz" / "found"
"""Inputs that are finds now. They move to CORPUS when their fault is mended."""


_SHARED = {"crowds": "requests"}
"""Targets whose inputs are those of another one."""


def corpus_folder(target: str) -> Path:
    """The folder of a target's inputs that are in the repository."""
    return CORPUS / _SHARED.get(target, target)


def corpus(target: str) -> list[Path]:
    """The inputs of a target that are in the repository."""
    return sorted(corpus_folder(target).glob("*.input"))
