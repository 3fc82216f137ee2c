"""The drawing of rooms and arrows: what counts as an arrow, a floor and a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.layout import Graph, circles, floors, imports, layout, main, rooms_without_tests
from scripts.python_files import PythonFile

NODES = st.sampled_from("abcdefg")
GRAPHS = st.dictionaries(NODES, st.frozensets(NODES)).map(
    lambda graph: {node: frozenset(graph.get(node, ())) - {node} for node in "abcdefg"}
)


def python_file(path: str, text: str) -> PythonFile:
    return PythonFile(Path(path), text, ast.parse(text))


def reachable(graph: Graph, start: str) -> set[str]:
    """All that can be reached from a node, slowly."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        for target in graph[ahead.pop()] - seen:
            seen.add(target)
            ahead.append(target)
    return seen


@given(GRAPHS)
def test_circles_are_the_nodes_that_reach_each_other(graph: Graph) -> None:
    """A node is in a circle exactly if it can be reached from itself, and with those that it reaches and that reach
    it."""
    members = {node: frozenset(circle) for circle in circles(graph) for node in circle}
    for node in graph:
        ahead = reachable(graph, node)
        around = frozenset(other for other in ahead if node in reachable(graph, other))
        assert members.get(node, frozenset()) == around


def test_floors_are_the_longest_way_down() -> None:
    graph = {"cli": frozenset("ab"), "a": frozenset("b"), "b": frozenset("c"), "c": frozenset(), "alone": frozenset()}
    assert floors(graph) == 4
    assert floors({**graph, "c": frozenset("b")}) == 3  # a circle is one floor


def test_lazy_imports_and_those_for_types_count() -> None:
    """An import inside a function or under TYPE_CHECKING ties two rooms as much as any other."""
    files = [
        python_file("p/upper/one.py", "def f():\n    from p.lower import two\n"),
        python_file("p/upper/types.py", "if TYPE_CHECKING:\n    from p.other import Thing\n"),
        python_file("p/upper/__init__.py", "from p.upper import one\nimport os\n"),
        python_file("p/lower/two.py", ""),
        python_file("p/lower/__init__.py", ""),
        python_file("p/other.py", ""),
    ]

    drawn = layout("p", files)

    assert drawn.rooms == {"upper": frozenset({"lower", "other"}), "lower": frozenset(), "other": frozenset()}
    assert drawn.n_files == {"upper": 3, "lower": 2, "other": 1}
    assert imports(files)["p.upper"] == frozenset({"p.upper.one"})


@pytest.mark.slow  # `make check` looks first
def test_nothing_in_the_repository_imports_in_a_circle() -> None:
    assert main(["--check"]) == 0


def test_a_room_without_tests_is_named(tmp_path: Path) -> None:
    """A folder counts as tested where a test lies anywhere below the folder of its name."""
    files = [python_file(path, "") for path in ("p/one.py", "p/upper/two.py", "p/lower/deep/three.py", "q/four.py")]
    for path in ("p/lower/deep/test_three.py", "p/upper/conftest.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()

    assert rooms_without_tests(files, tmp_path) == ["p/upper", "q"]
