"""Draw the structure of the code in words: rooms, the arrows between them, floors, and circles.

    python -m scripts.layout                the table of packages, and each package's rooms
    python -m scripts.layout --check        status 1 where an import goes in a circle, or a room has no tests

A room is what stands directly in a package: a folder with all that is below it, or a file. An arrow goes from a room to
another one that it imports, at the top of a file, inside a function or for type checking alone. Floors are the rooms on
the longest way down. A circle is a set of rooms, or of files, that import each other. Tests mirror the rooms: those of
a room that is a folder lie in the folder of its name below `tests`.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.python_files import PACKAGES, PythonFile, python_files

Graph = Mapping[str, frozenset[str]]
"""Every node with those that it points to."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The structure of one package.

    Attributes:
        package: its name.
        rooms: each room with the rooms that it imports.
        n_files: Python files of each room.
        n_lines: lines of each room.
    """

    package: str
    rooms: Graph
    n_files: Mapping[str, int]
    n_lines: Mapping[str, int]

    @property
    def n_arrows(self) -> int:
        return sum(map(len, self.rooms.values()))


def imports(files: Iterable[PythonFile]) -> Graph:
    """Draw an arrow from each file to those of the files that it imports, by module name."""
    files = list(files)
    known = {file.module for file in files}
    graph = {}
    for file in files:
        targets = {target for node in ast.walk(file.tree) for target in _targets(node, known)}
        graph[file.module] = frozenset(targets - {file.module})
    return graph


def _targets(node: ast.AST, known: set[str]) -> list[str]:
    """The modules that an import statement names: `from a import b` names a.b where that is a module, else a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name in known]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in known else node.module for name in names if name in known or node.module in known]
    return []


def layout(package: str, files: Iterable[PythonFile]) -> Layout:
    """Gather the imports of a package's files by room."""
    files = [file for file in files if file.module.split(".")[0] == package]
    rooms: dict[str, set[str]] = {room_of(file.module): set() for file in files}
    for module, targets in imports(files).items():
        rooms[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    n_files, n_lines = dict.fromkeys(rooms, 0), dict.fromkeys(rooms, 0)
    for file in files:
        n_files[room_of(file.module)] += 1
        n_lines[room_of(file.module)] += file.text.count("\n")
    return Layout(package, {room: frozenset(targets) for room, targets in rooms.items()}, n_files, n_lines)


def room_of(module: str) -> str:
    """The room that a module lies in; the package's own name for its `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def circles(graph: Graph) -> list[list[str]]:
    """Sets of nodes that reach each other, by Tarjan's algorithm (SIAM J. Comput. 1, 1972), each in alphabetic
    order."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in order:
                visit(target)
            if target in stack:
                lowest[node] = min(lowest[node], lowest[target])
        if lowest[node] == order[node]:  # nothing above it on the stack leads further back: it closes a set
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1:
                found.append(sorted(members))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def floors(graph: Graph) -> int:
    """How many nodes lie on the longest way down; a circle counts as one."""
    representative = {node: members[0] for members in circles(graph) for node in members}

    def of(node: str) -> str:
        return representative.get(node, node)

    down: dict[str, set[str]] = {of(node): set() for node in graph}
    for node, targets in graph.items():
        down[of(node)] |= {of(target) for target in targets} - {of(node)}

    @cache
    def height(node: str) -> int:
        return 1 + max(map(height, down[node]), default=0)

    return max(map(height, down), default=0)


def main(argv: list[str] | None = None) -> int:
    """Print the layout; with --check, fail on circles and on rooms without tests."""
    parser = argparse.ArgumentParser(prog="python -m scripts.layout", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="print circles and rooms without tests alone; status 1 where there are any"
    )
    options = parser.parse_args(argv)
    files = list(python_files(PACKAGES))
    packages = [layout(package, files) for package in PACKAGES]
    file_circles = circles(imports(files))
    if not options.check:
        _print(packages, len(file_circles))
    for place, members in [
        *(("files", members) for members in file_circles),
        *((f"rooms of {one.package}", members) for one in packages for members in circles(one.rooms)),
    ]:
        print(f"circle of {place}: {' ↔ '.join(members)}", file=sys.stderr)
    untested = rooms_without_tests(files, Path("tests"))
    for folder in untested:
        print(f"no tests: {folder}", file=sys.stderr)
    return int(options.check and bool(file_circles or untested or any(circles(one.rooms) for one in packages)))


def rooms_without_tests(files: Iterable[PythonFile], tests: Path) -> list[str]:
    """Packages and rooms that are folders, such as "edge_client/plan", below whose name `tests` holds no test file."""
    folders = {Path(*file.path.parts[:depth]) for file in files for depth in (1, 2) if len(file.path.parts) > depth}
    return sorted(str(folder) for folder in folders if not any((tests / folder).rglob("test_*.py")))


def _print(packages: list[Layout], n_file_circles: int) -> None:
    print(f"{'package':14}{'rooms':>7}{'arrows':>8}{'floors':>8}{'circles':>9}{'files':>7}{'lines':>8}  widest folder")
    for one in packages:
        counts = (len(one.rooms), one.n_arrows, floors(one.rooms), len(circles(one.rooms)))
        n_files, n_lines = sum(one.n_files.values()), sum(one.n_lines.values())
        numbers = "".join(f"{count:>{width}}" for count, width in zip(counts, (7, 8, 8, 9), strict=True))
        print(f"{one.package:14}{numbers}{n_files:>7}{n_lines:>8,}  {_widest(one.package)}")
    print(f"circles of files in the whole repository: {n_file_circles}")
    for one in packages:
        print(f"\n{one.package}")
        for room in sorted(one.rooms, key=lambda name: (-one.n_lines[name], name)):
            to = ", ".join(sorted(one.rooms[room])) or "–"
            print(f"  {room:22}{one.n_files[room]:>4} files{one.n_lines[room]:>7,} lines  → {to}")


def _widest(package: str) -> str:
    folders: dict[str, int] = {}
    for file in python_files((package,)):
        folders[str(file.path.parent)] = folders.get(str(file.path.parent), 0) + 1
    return max((f"{count} files ({folder})" for folder, count in folders.items()), key=_leading_number, default="–")


def _leading_number(text: str) -> int:
    return int(text.split()[0])


if __name__ == "__main__":
    raise SystemExit(main())
