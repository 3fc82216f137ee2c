"""Calibration of predicted memory: what a probe measured comes back, within bounds, for its own way only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.jobs.messages import Plan
from edge_client.plan.calibration import (
    FILE,
    HIGHEST_RATIO,
    LOWEST_RATIO,
    NO_CALIBRATION,
    Calibration,
    calibration_key,
    read_calibration,
    write_calibration,
)
from edge_client.plan.peak_memory import IMPORTS_BYTES
from edge_client.state.folder import StateFolder

MIB = 1 << 20


def make_plan(predicted_bytes: int, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "format": "nf4",
        "compute": "fp32",
        "micro_batch": 4,
        "ranks": (3, 0, 5),
        "predicted_peak_bytes": predicted_bytes,
        "budget_bytes": 1 << 30,
    }
    return Plan(**{**fields, **changes})


def expected(calibration: Calibration, plan: Plan) -> int:
    return calibration.peak_bytes(
        plan.format, plan.compute, plan.checkpointing, plan.cache, plan.frozen_encoder, plan.predicted_peak_bytes
    )


@given(st.integers(0, 1 << 40))
def test_nothing_known_changes_nothing(predicted_bytes: int) -> None:
    """The identity, byte for byte."""
    assert expected(NO_CALIBRATION, make_plan(predicted_bytes)) == predicted_bytes


@given(st.integers(1 << 20, 1 << 34), st.floats(LOWEST_RATIO, HIGHEST_RATIO))
def test_what_was_measured_is_expected_from_now_on(above_bytes: int, ratio: float) -> None:
    """For the plan that was probed, to the byte's rounding; the libraries' part is never scaled."""
    plan = make_plan(IMPORTS_BYTES + above_bytes)
    measured_bytes = IMPORTS_BYTES + int(ratio * above_bytes)

    calibration = NO_CALIBRATION.with_measured(plan, measured_bytes)

    assert abs(expected(calibration, plan) - measured_bytes) <= 2 + above_bytes // (1 << 40)
    assert expected(calibration, make_plan(IMPORTS_BYTES)) == IMPORTS_BYTES


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_no_reading_leads_out_of_bounds(predicted_bytes: int, measured_bytes: int) -> None:
    """Whatever a probe says, the ratio stays a number that can be kept and read again."""
    calibration = NO_CALIBRATION.with_measured(make_plan(predicted_bytes), measured_bytes)

    (probe,) = calibration.probes.values()
    assert LOWEST_RATIO <= probe.ratio <= HIGHEST_RATIO
    again = make_plan(expected(calibration, make_plan(predicted_bytes)))
    assert calibration.knows(again), "the plan that was probed is not probed again"
    assert msgspec.json.decode(msgspec.json.encode(calibration), type=Calibration) == calibration


@pytest.mark.parametrize(
    "changes",
    [{"format": "int8"}, {"compute": "bf16"}, {"checkpointing": True}, {"cache": "int8"}, {"frozen_encoder": True}],
)
def test_one_way_says_nothing_about_another(changes: dict[str, Any]) -> None:
    """Each choice that memory depends on beside shapes is a way of its own."""
    plan = make_plan(IMPORTS_BYTES + 100 * MIB)
    calibration = NO_CALIBRATION.with_measured(plan, IMPORTS_BYTES + 120 * MIB)

    other = make_plan(plan.predicted_peak_bytes, **changes)

    assert calibration.knows(plan)
    assert not calibration.knows(other)
    assert expected(calibration, other) == other.predicted_peak_bytes


def test_a_probe_speaks_for_plans_of_about_its_size() -> None:
    """One far larger or smaller is probed itself, and its own ratio then counts."""
    plan = make_plan(IMPORTS_BYTES + 100 * MIB)
    calibration = NO_CALIBRATION.with_measured(plan, IMPORTS_BYTES + 120 * MIB)
    larger = make_plan(expected(calibration, make_plan(IMPORTS_BYTES + 200 * MIB)), micro_batch=8)

    again = calibration.with_measured(larger, IMPORTS_BYTES + 210 * MIB)

    assert not calibration.knows(larger)
    assert not calibration.knows(make_plan(IMPORTS_BYTES))
    assert calibration.knows(make_plan(IMPORTS_BYTES + 110 * MIB, ranks=(1, 1, 1)))
    assert abs(expected(again, make_plan(IMPORTS_BYTES + 200 * MIB)) - IMPORTS_BYTES - 210 * MIB) <= 2


def test_they_outlive_the_client_and_belong_to_one_base_and_board(tmp_path: Path) -> None:
    """What was written is read; another base or board, or a damaged file, starts with nothing."""
    folder = StateFolder(tmp_path / "state")
    folder.lock()
    key = calibration_key("d" * 64, "1.2", "a processor")
    calibration = read_calibration(folder, key).with_measured(make_plan(IMPORTS_BYTES + MIB), IMPORTS_BYTES + 2 * MIB)

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
