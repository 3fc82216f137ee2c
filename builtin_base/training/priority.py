"""Idle priority: a training that runs for days gives way to whatever else a machine is asked to do."""

from __future__ import annotations

import os
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")
_LOWEST = 19


def give_way() -> list[str]:
    """Lower this process's priority as far as the system allows; what could not be done, a sentence each.

    Linux groups processes by session (autogroup, sched(7)), and `nice` and the idle class count inside a group alone:
    a training in a session of its own takes a full share from everybody unless the group's own nice value is raised.
    The group of a terminal is left alone, since its shell would be slowed as well; a process in no such group, as in
    some containers, is weighed alone.
    """
    missing = []
    os.nice(_LOWEST)
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        missing.append("this system has no idle class; nice 19 is all")
    if not _AUTOGROUP.exists() or not _AUTOGROUP.read_text(encoding="ascii"):  # empty where it is in no session's group
        return missing
    if os.getsid(0) != os.getpid():
        missing.append("this process is not alone in its session, so its group keeps its share: start it with setsid")
        return missing
    try:
        _AUTOGROUP.write_text(f"{_LOWEST}\n", encoding="ascii")
    except OSError as error:
        missing.append(f"{_AUTOGROUP}: {error.strerror}; as root: echo {_LOWEST} > /proc/{os.getpid()}/autogroup")
    return missing
