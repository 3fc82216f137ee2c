"""Calibration that outlives the client."""

from __future__ import annotations

from pathlib import Path

from edge_client.jobs.messages import Plan, TrainingMode
from edge_client.jobs.sizes import IMPORTS_BYTES
from edge_client.plan.calibration import Calibration, calibration_key
from edge_client.state.calibration_file import FILE, read_calibration, write_calibration
from edge_client.state.folder import StateFolder

MIB = 1 << 20
PLAN = Plan(
    mode=TrainingMode(format="nf4", compute="fp32", micro_batch=4),
    ranks=(3, 0, 5),
    predicted_bytes=IMPORTS_BYTES + MIB,
    expected_peak_bytes=IMPORTS_BYTES + MIB,
    budget_bytes=1 << 30,
)


def test_they_outlive_the_client_and_belong_to_one_base_and_board(tmp_path: Path) -> None:
    """What was written is read; another base or board, or a damaged file, starts with nothing."""
    folder = StateFolder(tmp_path / "state")
    folder.lock()
    key = calibration_key("d" * 64, "1.2", "a processor")
    calibration = read_calibration(folder, key).with_measured(PLAN, IMPORTS_BYTES + 2 * MIB)

    write_calibration(folder, calibration)

    assert calibration.probes
    assert read_calibration(folder, key) == calibration
    for other in (
        calibration_key("e" * 64, "1.2", "a processor"),
        calibration_key("d" * 64, "1.3", "a processor"),
        calibration_key("d" * 64, "1.2", "another"),
    ):
        assert read_calibration(folder, other) == Calibration(key=other)
    for damage in (
        b"",
        b"{",
        b'{"key":"%s","probes":{"nf4":{"ratio":1e300,"expected_bytes":9}}}' % key.encode(),
        b'{"key":3}',
    ):
        (folder.path / FILE).write_bytes(damage)
        assert read_calibration(folder, key) == Calibration(key=key)
    folder.unlock()
