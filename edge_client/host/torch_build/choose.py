"""The choice of torch for a board, from the table in builds.json, which is all that is read. Standard library only.

One place knows which build serves which board: Makefile, installer, packages, containers and `edge-client doctor` ask
here (docs/decisions/0068-which-torch-for-which-board.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from edge_client.host.torch_build.facts import BoardFacts, Version, numbers


class NoBuildError(Exception):
    """No build of torch serves this board. `hint` says what would."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


@dataclass(frozen=True, slots=True)
class Build:
    """One row of the table.

    Attributes:
        name: of the kind of board.
        board: the kind in words.
        machine: its processor architecture.
        jetson_linux: first and last release of NVIDIA's system that it is for, () for every board.
        lacks: processor features of which one must be missing.
        python: versions that there is a wheel for.
        glibc: the C library that it needs at least.
        version: torch's, as it says itself.
        wheel: address of the file, "" where an index has it. NVIDIA's names have a number more than the version, so pip
            takes such a file by its address or path only.
        index: index beside PyPI that has the better build of this version, "" for none.
        also: requirements that this build adds to Braid's own.
        beside_torch: libraries that must lie in the folder of torch's own.
        gpu: whether it is for the board's NVIDIA GPU.
        disk_mib: what it takes once it is unpacked, 0 where nobody has measured.
        why: the reason, for people.
    """

    name: str
    board: str
    machine: str
    python: tuple[str, ...]
    glibc: str
    version: str
    why: str
    jetson_linux: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    wheel: str = ""
    index: str = ""
    also: tuple[str, ...] = ()
    beside_torch: tuple[str, ...] = ()
    gpu: bool = False
    disk_mib: int = 0

    @property
    def requirement(self) -> str:
        """The words that pip is given."""
        return f"torch @ {self.wheel}" if self.wheel else f"torch=={self.version}"


@cache
def builds() -> tuple[Build, ...]:
    """All rows of the table."""
    return tuple(Build(**{name: _frozen(value) for name, value in row.items()}) for row in _table()["builds"])


def choose(facts: BoardFacts) -> Build:
    """The build that serves a board. Raises NoBuildError where none does."""
    build = next((build for build in builds() if _is_for(build, facts)), None)
    if build is None:
        machines = " and ".join(sorted({build.machine for build in builds()}))
        raise NoBuildError(
            f"there is no build of torch for {facts.machine or 'this processor'}",
            f"Braid trains on {machines}: use the 64-bit system of your board",
        )
    _require_python(build, facts)
    if facts.glibc < numbers(build.glibc):
        found = f"glibc {_words(facts.glibc)}" if facts.glibc else "another C library than glibc"
        raise NoBuildError(
            f"torch {build.version}, the build for a {build.board}, needs glibc {build.glibc}; this system has {found}",
            "install a newer system: Debian 12, Ubuntu 22.04, Raspberry Pi OS 12, JetPack 6, or newer",
        )
    return build


def named(name: str, facts: BoardFacts) -> Build:
    """The row of that name, for the Python of `facts`. Raises NoBuildError where the table has none."""
    found = {build.name: build for build in builds()}
    if name not in found:
        raise NoBuildError(f"there is no build {name!r}", f"the builds are {', '.join(found)}")
    _require_python(found[name], facts)
    return found[name]


def trouble(facts: BoardFacts, torch_version: str) -> str:
    """A sentence about a version of torch that is known to fail on such a board; "" where nothing is known."""
    version = numbers(torch_version)[:2]
    for row in _table()["troubles"]:
        first, last = map(numbers, row["versions"])
        if row["machine"] == facts.machine and _lacks(row["lacks"], facts) and first <= version <= last:
            return str(row["what"])
    return ""


def remedy(facts: BoardFacts) -> str:
    """A sentence that says which torch to install on a board instead of one that fails."""
    try:
        build = choose(facts)
    except NoBuildError as error:
        return error.hint
    source = f" --extra-index-url {build.index}" if build.index else ""
    what = f"'{build.requirement}'" if build.wheel else build.requirement
    return f"install the build that serves a {build.board}: pip install{source} {what}"


def _require_python(build: Build, facts: BoardFacts) -> None:
    if _words(facts.python) not in build.python:
        raise NoBuildError(
            f"torch {build.version}, the build for a {build.board}, is not made for Python {_words(facts.python)}",
            f"use Python {_either(build.python)} (--python)",
        )


def _is_for(build: Build, facts: BoardFacts) -> bool:
    if build.machine != facts.machine:
        return False
    if build.jetson_linux:
        first, last = map(numbers, build.jetson_linux)
        if not first <= facts.jetson_linux[:2] <= last:
            return False
    return not build.lacks or _lacks(build.lacks, facts)


def _lacks(features: Sequence[str], facts: BoardFacts) -> bool:
    """Whether one of `features` is missing. Nothing is missing on a board that tells no features at all."""
    return bool(facts.features) and not facts.features.issuperset(features)


def _words(version: Version) -> str:
    return ".".join(map(str, version))


def _either(versions: Sequence[str]) -> str:
    return versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def _table() -> Mapping[str, Any]:
    text = files("edge_client.host.torch_build").joinpath("builds.json").read_text(encoding="utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table
