"""Calibration of predicted memory: what a probe measured comes back, within bounds, for its own way only."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.jobs.messages import Plan, TrainingMode
from edge_client.jobs.sizes import IMPORTS_BYTES
from edge_client.plan.calibration import HIGHEST_RATIO, LOWEST_RATIO, NO_CALIBRATION, Calibration

MIB = 1 << 20


def make_plan(predicted_bytes: int, ranks: tuple[int, ...] = (3, 0, 5), **changes: Any) -> Plan:
    fields: dict[str, Any] = {"format": "nf4", "compute": "fp32", "micro_batch": 4, **changes}
    return Plan(
        mode=TrainingMode(**fields),
        ranks=ranks,
        predicted_bytes=predicted_bytes,
        expected_peak_bytes=predicted_bytes,
        budget_bytes=1 << 30,
    )


def expected(calibration: Calibration, plan: Plan) -> int:
    return calibration.expected_bytes(plan.mode, plan.predicted_bytes)


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
    assert expected(calibration, plan) >= measured_bytes
    assert expected(calibration, make_plan(IMPORTS_BYTES)) == IMPORTS_BYTES


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 34))
def test_no_reading_leads_out_of_bounds(predicted_bytes: int, measured_bytes: int, imports_bytes: int) -> None:
    """Whatever a probe says, the ratio stays a number that can be kept and read again, and of the plan that was probed
    at least that is expected."""
    calibration = NO_CALIBRATION.with_measured(make_plan(predicted_bytes), measured_bytes, imports_bytes)

    (probe,) = calibration.probes.values()
    assert LOWEST_RATIO <= probe.ratio <= HIGHEST_RATIO
    assert expected(calibration, make_plan(predicted_bytes)) >= measured_bytes
    again = make_plan(expected(calibration, make_plan(predicted_bytes)))
    assert calibration.knows(again), "the plan that was probed is not probed again"
    assert msgspec.json.decode(msgspec.json.encode(calibration), type=Calibration) == calibration


def test_what_the_imports_take_is_not_scaled() -> None:
    """A library of 700 MiB beside torch is there for every plan of every mode, once; the ratio is the step's own."""
    plan = make_plan(IMPORTS_BYTES + 130 * MIB)

    calibration = NO_CALIBRATION.with_measured(plan, IMPORTS_BYTES + 700 * MIB + 156 * MIB, IMPORTS_BYTES + 700 * MIB)

    assert calibration.ratio(plan.mode) == pytest.approx(1.2)
    smaller, other = make_plan(IMPORTS_BYTES + 50 * MIB), make_plan(IMPORTS_BYTES + 50 * MIB, format="int8")
    assert expected(calibration, smaller) == pytest.approx(IMPORTS_BYTES + 760 * MIB, abs=2)
    assert expected(calibration, other) == IMPORTS_BYTES + 750 * MIB


@pytest.mark.parametrize(("measured_bytes", "ratio"), [(120 * MIB, 1.0), (240 * MIB, 1.2), (900 * MIB, 3.0)])
def test_what_a_probe_does_not_try_is_expected_beside_what_it_took(measured_bytes: int, ratio: float) -> None:
    """A probe writes and judges no answers. One that takes less than is predicted for its part lowers nothing, and one
    that takes more than that shows it, though it takes less than the whole prediction."""
    plan, untried_bytes = make_plan(IMPORTS_BYTES + 300 * MIB), 100 * MIB

    calibration = NO_CALIBRATION.with_measured(plan, IMPORTS_BYTES + measured_bytes, untried_bytes=untried_bytes)

    assert calibration.ratio(plan.mode) == pytest.approx(ratio)
    assert expected(calibration, plan) >= max(plan.predicted_bytes, IMPORTS_BYTES + measured_bytes + untried_bytes)


def test_a_probe_far_over_its_plan_is_expected_in_full() -> None:
    """918 MiB were measured where 370 were predicted: with a ratio cut at 3 a plan for 655 MiB was accepted."""
    plan = make_plan(370 * MIB)

    calibration = NO_CALIBRATION.with_measured(plan, 918 * MIB)

    assert expected(calibration, plan) == 918 * MIB
    assert expected(calibration, make_plan(300 * MIB)) > 655 * MIB


@pytest.mark.parametrize(
    "changes",
    [{"format": "int8"}, {"compute": "bf16"}, {"checkpointing": True}, {"cache": "int8"}, {"frozen_encoder": True}],
)
def test_one_way_says_nothing_about_another(changes: dict[str, Any]) -> None:
    """Each choice that memory depends on beside shapes is a way of its own."""
    plan = make_plan(IMPORTS_BYTES + 100 * MIB)
    calibration = NO_CALIBRATION.with_measured(plan, IMPORTS_BYTES + 120 * MIB)

    other = make_plan(plan.expected_peak_bytes, **changes)

    assert calibration.knows(plan)
    assert not calibration.knows(other)
    assert expected(calibration, other) == other.expected_peak_bytes


def test_a_probe_speaks_for_plans_of_about_its_size() -> None:
    """One far larger or smaller is probed itself, and its own ratio then counts."""
    plan = make_plan(IMPORTS_BYTES + 100 * MIB)
    calibration = NO_CALIBRATION.with_measured(plan, IMPORTS_BYTES + 120 * MIB)
    larger = make_plan(IMPORTS_BYTES + 200 * MIB, micro_batch=8)
    larger = msgspec.structs.replace(larger, expected_peak_bytes=expected(calibration, larger))

    again = calibration.with_measured(larger, IMPORTS_BYTES + 210 * MIB)

    assert not calibration.knows(larger)
    assert not calibration.knows(make_plan(IMPORTS_BYTES))
    assert calibration.knows(make_plan(IMPORTS_BYTES + 110 * MIB, ranks=(1, 1, 1)))
    assert abs(expected(again, make_plan(IMPORTS_BYTES + 200 * MIB)) - IMPORTS_BYTES - 210 * MIB) <= 2
