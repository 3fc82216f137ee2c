"""Processors that this process may use, and those of them that nobody else is using now."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from edge_client.host.cgroups import cgroup_folders
from edge_client.host.system_files import read_text

SAMPLE_S = 0.1
"""How long others are watched: ten of the kernel's ticks. A job waits for it."""

_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # of /proc/stat: user, nice, system, irq, softirq, steal; not idle and iowait


def usable_processors(root: Path = Path("/")) -> int:
    """Processors that this process may run on, control groups' quotas included, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder, v2 in cgroup_folders(root, "cpu"):
        if v2:
            quota, period = (*read_text(folder / "cpu.max").split(), "", "")[:2]
        else:
            quota, period = (read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)


def free_processors(root: Path = Path("/"), sleep: Callable[[float], None] = time.sleep) -> int:
    """Usable processors less those that are busy while this process sleeps for SAMPLE_S; at least 1.

    A product that is split over more threads than there are free processors waits, again and again, for the thread that
    was not scheduled: on two cores of which another program held one, training ran at a quarter of one thread's speed.
    """
    usable = usable_processors(root)
    if usable == 1:
        return usable
    n_processors, before = _busy_ticks(root)
    sleep(SAMPLE_S)
    _, after = _busy_ticks(root)
    n_busy = round((after - before) / (os.sysconf("SC_CLK_TCK") * SAMPLE_S))
    return max(1, min(usable, n_processors - n_busy)) if n_processors else usable


def _busy_ticks(root: Path) -> tuple[int, int]:
    """How many processors there are, and ticks that they have worked since the system started; 0, 0 where it does not
    say."""
    rows = re.findall(r"^cpu[0-9]+((?: [0-9]+){8})", read_text(root / "proc/stat"), re.MULTILINE)
    return len(rows), sum(int(row.split()[place]) for row in rows for place in _BUSY_FIELDS)
