"""The wheels that a package brings: all that Braid needs on each Python of an architecture, at the pinned versions.

pip works out what is needed by the markers of the Python that it runs on, not by those of the one it is asked for. So
requirements are followed here, wheel by wheel, and pip fetches each by its name and version.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from edge_client.host.torch_build.facts import numbers
from edge_client.host.torch_build.markers import pins_on

PLATFORMS = (*(f"manylinux_2_{glibc}" for glibc in range(28, 16, -1)), "manylinux2014", "manylinux2010", "manylinux1")
"""Builds for the C library 2.28 or older, as torch's are; the oldest system of ours, Ubuntu 22.04, has 2.35."""


@dataclass(frozen=True, slots=True)
class Target:
    """A Python on an architecture, such as 3.11 on aarch64."""

    python: str
    machine: str

    @property
    def markers(self) -> dict[str, str]:
        """Values of the markers that requirements may have."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    @property
    def pip_flags(self) -> list[str]:
        """The words by which pip fetches for this target."""
        platforms = [f"--platform={platform}_{self.machine}" for platform in PLATFORMS]
        return ["--only-binary=:all:", f"--python-version={self.python}", *platforms]


def fetch(roots: Sequence[str], target: Target, constraints: Sequence[str], found: Path, into: Path) -> list[Path]:
    """The wheels of all that `roots` need on a target, fetched as far as its folder does not have them yet.

    Args:
        roots: requirements, such as "braid-fl[board]".
        target: what they are for.
        constraints: lines of constraints.txt.
        found: folder of the wheels that no index has.
        into: folder of this target's wheels alone.
    """
    pins = pins_of(constraints, target)
    while missing := sorted(closure(roots, target, into) - wheels_in(into).keys()):
        asked = [f"{name}=={pins[name]}" if name in pins else name for name in missing]
        pip("download", *target.pip_flags, "--no-deps", f"--find-links={found}", f"--dest={into}", *asked)
    wheels = wheels_in(into)
    return [wheels[name] for name in sorted(closure(roots, target, into))]


def closure(roots: Iterable[str], target: Target, folder: Path) -> set[str]:
    """Names of what `roots` need on a target, as far as the wheels in a folder tell."""
    wheels = wheels_in(folder)
    waiting = [Requirement(root) for root in roots]
    seen: set[tuple[str, str]] = set()
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        new = {(name, extra) for extra in ("", *need.extras)} - seen
        seen |= new
        if name not in wheels:
            continue
        for line in requirements_of(wheels[name]):
            inner = Requirement(line)
            extras = [extra for _, extra in new]
            if any(inner.marker is None or inner.marker.evaluate({**target.markers, "extra": each}) for each in extras):
                waiting.append(inner)
    return {name for name, _ in seen}


def pins_of(constraints: Iterable[str], target: Target) -> dict[str, str]:
    """Name → version of what is pinned on a target."""
    lines = [line for line in constraints if line and not line.startswith("#")]
    pins = (pin.split("==") for pin in pins_on(lines, numbers(target.python), target.machine))
    return {canonicalize_name(name): version for name, version in pins}


def wheels_in(folder: Path) -> dict[str, Path]:
    """Name → wheel."""
    return {str(parse_wheel_filename(path.name)[0]): path for path in sorted(folder.glob("*.whl"))}


def requirements_of(wheel: Path) -> list[str]:
    """Requirements that a wheel's metadata name."""
    with ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(file.read(name)).get_all("Requires-Dist") or []


def pip(*arguments: str) -> None:
    """Run the pip of this Python."""
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments], check=True)
