"""Clocks of processors and GPU as they run now, and as they may run at most, read from sysfs below `root`.

docs.kernel.org/admin-guide/pm/cpufreq.html: kHz, a policy for each group of cores; docs.kernel.org/power/devfreq (and
Documentation/ABI/testing/sysfs-class-devfreq): Hz. On Jetsons the GPU's device is named 17000000.gpu or alike. What
`scaling_max_freq` allows is less than the core can where a power mode or heat says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_client.host.system_files import read_number, read_text


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock, in MHz.

    Attributes:
        name: of what it drives.
        now_mhz: as it runs.
        allowed_mhz: as it may run now.
        most_mhz: as it can run.
    """

    name: str
    now_mhz: int
    allowed_mhz: int
    most_mhz: int


def read_clocks(root: Path = Path("/")) -> list[Clock]:
    """The clocks that this board tells."""
    clocks = []
    for folder in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        cores = read_text(folder / "related_cpus").split()
        name = f"CPU {cores[0]}-{cores[-1]}" if len(cores) > 1 else f"CPU {folder.name.removeprefix('policy')}"
        names = ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")
        clocks.append(_clock(name, [folder / file for file in names], 1000))
    for folder in sorted((root / "sys/class/devfreq").glob("*gpu*")):
        files = [folder / "cur_freq", folder / "max_freq", folder / "max_freq"]
        clocks.append(_clock("GPU", files, 1_000_000))
    return [clock for clock in clocks if clock is not None]


def _clock(name: str, files: list[Path], per_mhz: int) -> Clock | None:
    """None where one of the files cannot be read."""
    mhz = [number // per_mhz for number in map(read_number, files) if number is not None]
    return Clock(name, *mhz) if len(mhz) == len(files) else None
