"""The pins that hold on a board of another Python or architecture, beside packaging's own judgement."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edge_client.host.torch_build.__main__ import main
from edge_client.host.torch_build.markers import pins_on

ROOT = Path(__file__).parents[4]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def by_packaging(python: str, machine: str) -> list[str]:
    """The pins that packaging, which pip uses, finds to hold."""
    asked = {
        "python_version": python,
        "python_full_version": f"{python}.4",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found = []
    for line in LINES:
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(asked):
                found.append(f"{pin.name}{pin.specifier}")
    return found


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_the_pins_are_those_that_pip_would_take_on_the_board(python: str, machine: str) -> None:
    """Of all lines that constraints.txt has today."""
    version = tuple(map(int, python.split(".")))

    found = [line for line in pins_on(LINES, version, machine) if line and not line.startswith("#")]

    assert found == by_packaging(python, machine)


def test_a_marker_of_another_kind_is_an_error() -> None:
    """It would silently be taken for one that holds, or not."""
    for marker in ("extra in 'a b'", "python_version ~= '3.11'", "os_name == 'posix'", "'linux' == sys_platform"):
        with pytest.raises((ValueError, SyntaxError)):
            pins_on([f"numpy==1.0 ; {marker}"], (3, 11), "aarch64")


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_fetched_for_other_boards_is_pinned(python: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Packages that were each the newest did not fit each other: SymPy asks for an mpmath below 1.4."""
    build = ("--build", "armv8.0", "--python", python, "--machine", "aarch64", "--glibc", "2.36")

    assert main([*build, "--constraints", str(ROOT / "constraints.txt")]) == 0

    pins = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith("#")]
    names = [pin.partition("==")[0] for pin in pins]
    assert ";" not in "".join(pins)
    assert len(names) == len(set(names))
    assert {"mpmath", "sympy", "numpy", "aiohttp", "torch"} <= set(names)
    assert "torch==2.9.1" in pins
