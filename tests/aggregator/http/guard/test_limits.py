"""Limits within what the system allows."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

from aggregator.http.guard.limits import MAX_DESCRIPTORS, Limits, few_connections_warning
from aggregator.settings.keys import MAX_DEVICES

ROOT = Path(__file__).parents[4]

RAISED = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, min(hard, 700)))
from aggregator.http.guard.limits import raise_descriptor_limit
print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """systemd's default is 1,024, and a service that wants more has to ask."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 700

    done = subprocess.run([sys.executable, "-c", RAISED], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.split() == ["700", "700", "700"]


def test_connections_leave_descriptors_for_files() -> None:
    """Each may have a file open; strangers get a part; and where there are few, somebody is told."""
    small, large = Limits().within(1024), Limits().within(MAX_DESCRIPTORS)

    assert 2 * small.connections < 1024 and small.strangers <= small.connections // 4
    assert "LimitNOFILE" in few_connections_warning(small) and not few_connections_warning(large)
    assert large.connections >= 3 * MAX_DEVICES


def test_the_unit_allows_what_the_server_asks_for() -> None:
    text = (ROOT / "deploy" / "aggregator.service").read_text()
    found = re.search(r"^LimitNOFILE=(\d+)$", text, re.MULTILINE)

    assert found is not None and int(found[1]) == MAX_DESCRIPTORS
