"""The machine that a number was measured on, in one line to print beside it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_client.host.matmul_speed import processor

MIB = 2**20
GIB = 2**30


def describe_machine(*packages: str) -> str:
    """Processor, cores, memory, system, Python, and the versions of `packages` that are installed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    known = [f"{name} {_version(name)}" for name in packages]
    parts = [
        processor(),
        f"{cores} cores",
        f"{memory_bytes() / GIB:.1f} GiB",
        f"{platform.system()} {platform.machine()}",
    ]
    return ", ".join([*parts, f"Python {platform.python_version()}", *known])


def memory_bytes() -> int:
    """RAM of this machine, 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:")), 0)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
