"""Which wheels a package brings: followed by each target's own markers, and asked for by their pins."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from scripts.deb import wheels
from scripts.deb.wheels import Target, closure, fetch, pins_of

OLD, NEW = Target("3.10", "aarch64"), Target("3.13", "aarch64")

INDEX = {
    "root": ["middle[fast]>=1", 'backport; python_version < "3.11"', 'windows-only; sys_platform == "win32"'],
    "middle": ["leaf", 'quick; extra == "fast"', 'docs; extra == "doc"'],
    "leaf": ["root"],  # a circle ends
    "backport": [],
    "quick": ['for-arm; platform_machine == "aarch64"', 'for-x86; platform_machine == "x86_64"'],
    "for-arm": [],
}
"""Name → what it requires."""


def wheel(folder: Path, name: str) -> None:
    """A wheel as far as its metadata."""
    with ZipFile(folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl", "w") as file:
        lines = [f"Requires-Dist: {line}" for line in INDEX[name]]
        file.writestr(f"{name}-1.0.dist-info/METADATA", "\n".join([f"Name: {name}", *lines, "", "text"]))


@pytest.mark.parametrize(("target", "backports"), [(OLD, {"backport"}), (NEW, set())])
def test_a_target_gets_what_its_own_markers_ask_for(target: Target, backports: set[str], tmp_path: Path) -> None:
    """Not what those of the Python ask for that makes the packages; extras are followed, circles end."""
    for name in INDEX:
        wheel(tmp_path, name)

    assert closure(["root"], target, tmp_path) == {"root", "middle", "quick", "leaf", "for-arm"} | backports


def test_wheels_are_asked_for_by_their_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Level by level, until nothing is missing; what lies there is not asked for again."""
    asked: list[str] = []

    def pip(*arguments: str) -> None:
        assert "--python-version=3.10" in arguments
        assert "--platform=manylinux_2_28_aarch64" in arguments
        names = [word for word in arguments if word.startswith(tuple(INDEX))]
        asked.extend(names)
        for name in names:
            wheel(tmp_path, name.partition("==")[0])

    monkeypatch.setattr(wheels, "pip", pip)
    constraints = [
        "# pins",
        "leaf==1.0",
        "quick==1.0 ; python_full_version < '3.11'",
        "quick==9 ; python_version >= '3.11'",
    ]

    found = fetch(["root"], OLD, constraints, tmp_path / "own", tmp_path)

    assert sorted(asked) == ["backport", "for-arm", "leaf==1.0", "middle", "quick==1.0", "root"]
    assert len(found) == len(asked)
    assert fetch(["leaf"], OLD, constraints, tmp_path / "own", tmp_path) == found
    assert len(asked) == len(found)


def test_pins_are_those_of_the_target() -> None:
    lines = ["numpy==2.2.6 ; python_full_version < '3.11'", "numpy==2.4.6 ; python_full_version >= '3.11'", "", "# x"]

    assert pins_of(lines, OLD) == {"numpy": "2.2.6"}
    assert pins_of(lines, NEW) == {"numpy": "2.4.6"}
