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
words = group.read_text().split() if group.exists() else []
print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE, words[-1] if words else "none")
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
    if group == "none" or alone:
        assert missing == "" and group in {"none", "19"}
    else:
        assert "setsid" in missing and group != "19"


def test_a_process_in_no_group_has_none_to_lower(tmp_path: Path) -> None:
    """The file is empty in a container whose processes are of the system's first session; nothing is missing there."""
    empty = tmp_path / "autogroup"
    empty.write_text("", encoding="ascii")
    moved = f"import builtin_base.training.priority as priority\npriority._AUTOGROUP = pathlib.Path({str(empty)!r})\n"
    program = GIVE_WAY.replace("missing =", moved + "missing =")

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[1] == ""
    assert empty.read_text(encoding="ascii") == ""
