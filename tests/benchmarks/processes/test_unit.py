"""The shipped unit's limits reach a process, and what does not is said."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.processes.cost import Cost, cost_of
from benchmarks.processes.unit import descriptors, unit_limits

TELL = "import os, resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE), os.environ.get('MALLOC_ARENA_MAX'))"


def test_the_shipped_units_limits_are_known() -> None:
    """Descriptors and threads, on which a server's memory depends."""
    limits = unit_limits()

    assert limits.environment["OPENBLAS_NUM_THREADS"] == "1"
    assert any(line.startswith("LimitNOFILE=65536") for line in limits.applied)
    assert limits.resources[resource.RLIMIT_NOFILE][0] > 4096


def test_a_process_starts_under_them(tmp_path: Path) -> None:
    """As much as this process may give; memory of a group is left out, and said."""
    unit = tmp_path / "a.service"
    unit.write_text("[Service]\n# LimitNOFILE=9\nEnvironment=MALLOC_ARENA_MAX=7 A=b\nLimitNOFILE=512\nMemoryMax=1G\n")

    limits = unit_limits(unit)
    done = subprocess.run(
        [sys.executable, "-c", TELL],
        env=limits.full_environment(),
        preexec_fn=limits.take,
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == ["512", "512", "7"]
    assert (limits.applied, limits.left_out) == (("MALLOC_ARENA_MAX=7 A=b", "LimitNOFILE=512"), ("MemoryMax=1G",))


def test_a_service_that_says_nothing() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert descriptors(300).resources == {resource.RLIMIT_NOFILE: (300, hard)}


def test_the_cost_of_a_process() -> None:
    """Of this one; zeros where there is none."""
    cost = cost_of(os.getpid())

    assert 1 << 20 < cost.shared_out_bytes <= cost.resident_bytes <= cost.peak_bytes
    assert cost.cpu_s > 0 and cost.peak_mib == cost.peak_bytes / 2**20
    assert cost_of(2**22 + 1) == Cost()
