"""The cost of a process: memory and processor time, as the kernel counts them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from braid_common.units import MIB


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one process so far; all zero where it has ended.

    Attributes:
        resident_bytes: memory now.
        peak_bytes: memory at most.
        shared_out_bytes: memory now, pages that several processes map counted in equal parts (PSS).
        cpu_s: processor time, of the program and of the kernel for it.
    """

    resident_bytes: int = 0
    peak_bytes: int = 0
    shared_out_bytes: int = 0
    cpu_s: float = 0.0

    @property
    def resident_mib(self) -> float:
        return self.resident_bytes / MIB

    @property
    def peak_mib(self) -> float:
        return self.peak_bytes / MIB

    @property
    def shared_out_mib(self) -> float:
        return self.shared_out_bytes / MIB


def cost_of(pid: int) -> Cost:
    """The cost of the process of this id."""
    folder = Path(f"/proc/{pid}")
    try:
        sizes = _sizes(folder / "status") | _sizes(folder / "smaps_rollup")
        ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return Cost()
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Cost(sizes.get("VmRSS", 0), sizes.get("VmHWM", 0), sizes.get("Pss", 0), cpu_s)


def _sizes(path: Path) -> dict[str, int]:
    """The lines of a file of /proc that name a size in kB, in bytes."""
    words = (line.split() for line in path.read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) << 10 for line in words if len(line) == 3 and line[2] == "kB"}
