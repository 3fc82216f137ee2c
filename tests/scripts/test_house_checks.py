"""The checks of sizes and first lines find what they are for, and the repository keeps them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts import first_lines, size_budget
from scripts.python_files import PythonFile


def python_file(text: str, path: str = "p/one.py") -> PythonFile:
    return PythonFile(Path(path), text, ast.parse(text))


def function(n_lines: int = 2, parameters: str = "a") -> str:
    return f"def f({parameters}):\n" + "    pass\n" * (n_lines - 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (function(size_budget.MAX_FUNCTION_LINES), ""),
        (function(size_budget.MAX_FUNCTION_LINES + 1), "46 lines"),
        (function(parameters="self, a, b, c, d, *, e, f, g"), ""),
        (function(parameters="a, b, c, d, *, e, f, g, h"), "8 parameters"),
        ("x = 1\n" * size_budget.MAX_FILE_LINES, ""),
        ("x = 1\n" * (size_budget.MAX_FILE_LINES + 1), "351 lines"),
    ],
)
def test_the_budget_is_held_to_the_line(text: str, words: str) -> None:
    found = list(size_budget.excesses([python_file(text)]))
    assert [words in line for line in found] == ([True] if words else [])


def test_a_folder_holds_twenty_files() -> None:
    files = [python_file("", f"p/f{number}.py") for number in range(size_budget.MAX_FILES + 1)]
    assert not list(size_budget.excesses(files[:-1]))
    assert list(size_budget.excesses(files)) == ["p: 21 Python files, at most 20"]


@pytest.mark.parametrize(
    ("docstring", "is_fault"),
    [
        ("Bytes that an update takes.", False),
        ("Of one example, every weight.", True),
        ("What a board holds.", True),
        ("And a sum for each weight.", True),
        ("Ofelia is a name.", False),
    ],
)
def test_a_first_line_stands_alone(docstring: str, is_fault: bool) -> None:
    text = f'"""A module."""\n\n\ndef f():\n    """{docstring}"""\n'
    assert bool(list(first_lines.faults([python_file(text)]))) is is_fault


def test_modules_and_classes_say_what_they_are() -> None:
    assert len(list(first_lines.faults([python_file("class A:\n    pass\n")]))) == 2


@pytest.mark.slow  # `make check` looks first
def test_the_repository_keeps_both() -> None:
    assert size_budget.main() == 0
    assert first_lines.main() == 0
