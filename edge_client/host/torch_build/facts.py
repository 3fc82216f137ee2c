"""The facts about a board that decide which build of torch serves it. Standard library only: asked before anything is
installed.

Everything but the running interpreter is read below `root`, so that tests can lay out a board of their own.
"""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_client.host.system_files import read_text

Version = tuple[int, ...]
"""Numbers of a version, compared as tuples are."""


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """One board as far as the choice of torch depends on it.

    Attributes:
        machine: processor architecture, such as "aarch64".
        features: instructions beyond the least of the architecture, by the kernel's names.
        python: version of the interpreter that will run torch.
        glibc: version of the C library, () where it is another one.
        jetson_linux: NVIDIA's release of its system on a Jetson (36.4 is JetPack 6.2), () on any other board.
        model: the board's own name, "" where it tells none.
    """

    machine: str
    features: frozenset[str]
    python: Version
    glibc: Version
    jetson_linux: Version = ()
    model: str = ""


def read_facts(
    root: Path = Path("/"), *, machine: str = "", python: Version = (), glibc: Version | None = None
) -> BoardFacts:
    """Look at the board; what is given is believed instead."""
    return BoardFacts(
        machine=machine or platform.machine(),
        features=cpu_features(root),
        python=python or sys.version_info[:2],
        glibc=_glibc() if glibc is None else glibc,
        jetson_linux=_jetson_linux(root),
        model=read_text(root / "proc/device-tree/model").rstrip("\0\n "),
    )


def cpu_features(root: Path = Path("/")) -> frozenset[str]:
    """Features that every kind of core has; x86 calls the line "flags", arm64 "Features".

    The kernel moves threads between kinds of cores, so what one kind lacks cannot be used.
    """
    found: frozenset[str] | None = None
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            own = frozenset(value.split())
            found = own if found is None else found & own
    return found or frozenset()


def numbers(text: str) -> Version:
    """The leading numbers of a version: (2, 4, 0) of "2.4.0a0+07cecf4168.nv24.05"."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _jetson_linux(root: Path) -> Version:
    """The release that NVIDIA's file names: 36.4.3 of "# R36 (release), REVISION: 4.3, GCID: …"."""
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", read_text(root / "etc/nv_tegra_release"))
    return (int(found[1]), *numbers(found[2])) if found else ()


def _glibc() -> Version:
    name, version = platform.libc_ver()
    return numbers(version) if name == "glibc" else ()
