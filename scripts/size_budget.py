"""Hold the code to sizes that can be read in one sitting: `python -m scripts.size_budget` fails beyond them."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

from scripts.python_files import PACKAGES, PythonFile, python_files

MAX_FILES = 20
"""Python files in one folder. h11, httpcore, hypercorn and nanochat have 8 to 18 in their widest."""

MAX_FILE_LINES = 350
"""Lines of one file."""

MAX_FUNCTION_LINES = 45
"""Lines of one function, from `def` to its end, without decorators."""

MAX_PARAMETERS = 7
"""Parameters of one function; `self` and `cls` do not count."""


def excesses(files: Iterable[PythonFile]) -> Iterator[str]:
    """Name what is larger than the budget, a line for each."""
    folders: Counter[str] = Counter()
    for file in files:
        folders[str(file.path.parent)] += 1
        n_lines = file.text.count("\n")
        if n_lines > MAX_FILE_LINES:
            yield f"{file.path}: {n_lines} lines, at most {MAX_FILE_LINES}"
        for node in ast.walk(file.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from _function_excesses(file, node)
    for folder, n_files in folders.items():
        if n_files > MAX_FILES:
            yield f"{folder}: {n_files} Python files, at most {MAX_FILES}"


def _function_excesses(file: PythonFile, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    place = f"{file.path}:{node.lineno} {node.name}"
    n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if n_lines > MAX_FUNCTION_LINES:
        yield f"{place}: {n_lines} lines, at most {MAX_FUNCTION_LINES}"
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    n_parameters = len(names) - (names[:1] in (["self"], ["cls"]))
    if n_parameters > MAX_PARAMETERS:
        yield f"{place}: {n_parameters} parameters, at most {MAX_PARAMETERS}"


def main() -> int:
    """Print the excesses; status 1 where there are any."""
    found = list(excesses(python_files((*PACKAGES, "tests"))))
    for line in found:
        print(line, file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
