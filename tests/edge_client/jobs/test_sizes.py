"""Sizes that the planner and the engine share: the row of each architecture."""

from __future__ import annotations

import platform

import pytest

from edge_client.jobs.sizes import IMPORTS_BYTES, imports_bytes
from edge_client.plan.calibration import NO_CALIBRATION

MIB = 1 << 20


@pytest.mark.parametrize(("machine", "mib"), [("x86_64", 243), ("aarch64", 250), ("riscv64", 250)])
def test_imports_take_what_was_measured_on_the_architecture(machine: str, mib: int) -> None:
    """Where nobody has measured, the most of those."""
    assert imports_bytes(machine) == mib * MIB


def test_predictions_begin_with_this_machines_row() -> None:
    """Calibration, too, moves them by what exceeds it."""
    assert imports_bytes(platform.machine()) == IMPORTS_BYTES == NO_CALIBRATION.imports_bytes
