"""The machine that a number was measured on, in one line to print beside it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from braid_common.units import show_size
from edge_client.host.processor_name import processor
from edge_client.host.system_files import read_text


def describe_machine(*packages: str, root: Path = Path("/")) -> str:
    """Processor, cores, memory, system, Python, and the versions of `packages` that are installed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    known = [f"{name} {_version(name)}" for name in packages]
    system = f"{platform.system()} {platform.machine()}"
    python = f"Python {platform.python_version()}"
    return ", ".join([processor(root), f"{cores} cores", _memory(root), system, python, *known])


def _memory(root: Path) -> str:
    """The memory installed; what of it is free does not matter here."""
    lines = read_text(root / "proc/meminfo").splitlines()
    kib = next((int(line.split()[1]) for line in lines if line.startswith("MemTotal:")), 0)
    return show_size(kib << 10) if kib else "unknown memory"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
