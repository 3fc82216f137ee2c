"""The project's Python files, parsed once for the scripts that check or draw them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SHIPPED = ("braid_common", "wire", "quantize", "builtin_base", "edge_client", "aggregator")
"""Packages that the wheel holds, from the bottom up."""

PACKAGES = (*SHIPPED, "demo", "benchmarks", "chaos", "fuzz", "arm64", "scripts", "examples")
"""All packages but the tests."""


@dataclass(frozen=True, slots=True)
class PythonFile:
    """A source file, parsed.

    Attributes:
        path: relative to the repository's root.
        text: its source.
        tree: the source's syntax tree.
    """

    path: Path
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """The dotted name that the file is imported by; a folder's for its `__init__`."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_files(packages: tuple[str, ...], root: Path = ROOT) -> Iterator[PythonFile]:
    """Parse every file of some top-level folders, in the order of their paths."""
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield PythonFile(path.relative_to(root), text, ast.parse(text, str(path)))
