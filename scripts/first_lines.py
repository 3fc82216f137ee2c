"""Check that docstrings stand alone: `python -m scripts.first_lines` names those that continue their name.

A tooltip shows a docstring without the file around it. A first line that begins with "Of" or "And" is half a sentence,
and one that begins with "What" is a riddle.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator

from scripts.python_files import PACKAGES, PythonFile, python_files

NO_BEGINNINGS = frozenset(
    ("And", "As", "At", "But", "For", "From", "In", "Of", "That", "What", "Where", "With", "Which")
)
"""First words of what is no sentence and no noun of its own."""

_HAS_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def faults(files: Iterable[PythonFile]) -> Iterator[str]:
    """Name the docstrings whose first line does not say what the thing is, and modules and public things without
    one."""
    for file in files:
        if not file.text.strip():
            continue  # an empty __init__.py
        for node in ast.walk(file.tree):
            if not isinstance(node, _HAS_DOCSTRING):
                continue
            name = "module" if isinstance(node, ast.Module) else node.name
            place = f"{file.path}:{getattr(node, 'lineno', 1)} {name}"
            docstring = ast.get_docstring(node)
            if docstring is None:
                if isinstance(node, (ast.Module, ast.ClassDef)) and not name.startswith("_"):
                    yield f"{place}: has no docstring"
                continue
            first = docstring.splitlines()[0]
            words = re.findall(r"[A-Za-z]+", first)
            if words and words[0] in NO_BEGINNINGS:
                yield f"{place}: begins with {words[0]!r}: {first}"


def main() -> int:
    """Print the faults; status 1 where there are any."""
    found = list(faults(python_files(PACKAGES)))
    for line in found:
        print(line, file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
