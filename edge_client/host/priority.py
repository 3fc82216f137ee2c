"""A low priority for a process of ours, for processors and disk, so that the board's own work goes first."""

from __future__ import annotations

import ctypes
import os
import platform
from types import MappingProxyType

NICE = 5
"""Of the training worker, unless a person says otherwise: it gets a quarter of a processor that another program wants,
and all of one that nobody wants."""

_IOPRIO_SET = MappingProxyType({"x86_64": 251, "aarch64": 30})
"""Numbers of the system call ioprio_set, which the C library has no function for (ioprio_set(2))."""

_WHO_PROCESS = 1
_CLASS_IDLE = 3 << 13  # ioprio_set(2): the class stands above 13 bits of data


def yield_to_others(pid: int, nice: int) -> None:
    """Make a process nicer, to `nice` at least, and let its disk work wait for that of all others; 0 leaves both.

    Threads and children that it starts later are the same. A system that does not allow it is left as it is.
    """
    if not nice:
        return
    try:
        if os.getpriority(os.PRIO_PROCESS, pid) < nice:
            os.setpriority(os.PRIO_PROCESS, pid, nice)
    except OSError:
        return
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _WHO_PROCESS, pid, _CLASS_IDLE)
