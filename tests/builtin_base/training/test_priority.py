"""A training at idle priority gives way, also between Linux's sessions, where only the group's nice value counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GIVE_WAY = """
import os, pathlib
from builtin_base.training.priority import give_way
missing = give_way()
group = pathlib.Path("/proc/self/autogroup")
print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE, group.read_text().split()[-1] if group.exists() else "-")
print(" ".join(missing))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="idle class and autogroups are Linux's")
@pytest.mark.parametrize("alone", [True, False])
def test_everything_is_lowered_in_a_session_of_its_own(alone: bool) -> None:
    """Nice 19, the idle class, and the session's group; a group that others are in is left alone, which is said."""
    done = subprocess.run(
        [sys.executable, "-c", GIVE_WAY], capture_output=True, text=True, check=True, start_new_session=alone
    )

    first, missing = done.stdout.splitlines()
    nice, idle, group = first.split()
    assert (nice, idle) == ("19", "True")
    if Path("/proc/self/autogroup").exists():
        assert group == "19" if alone else "setsid" in missing
    if alone:
        assert missing == ""
