"""The log's filter: what fails again and again is told once a minute."""

from __future__ import annotations

import logging

import pytest

from aggregator.http import repeats
from aggregator.http.repeats import Repeats
from tests.fakes.clock import FakeClock


@pytest.fixture
def told(clock: FakeClock) -> list[str]:
    """The messages that a log with the filter tells."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Keep()
    handler.addFilter(Repeats(clock))
    log.handlers[:], log.propagate = [handler], False
    return lines


log = logging.getLogger("tests.repeats")
log.setLevel(logging.INFO)


def fail(number: int) -> None:
    try:
        raise ValueError(number)
    except ValueError:
        log.exception("call %d failed", number)


def test_a_fault_is_told_once_a_minute(told: list[str], clock: FakeClock) -> None:
    """Whatever is filled into its message; the next line says how many there were."""
    for number in range(1000):
        fail(number)
    clock.advance(60.0)
    fail(1000)

    assert told == ["call 0 failed", "call 1000 failed (and 999 more like it before)"]


def test_other_faults_are_told(told: list[str], clock: FakeClock) -> None:
    """Another message, another exception, another level."""
    fail(1)
    log.error("call %d failed", 1)
    log.warning("call %d failed", 1)
    log.error("another")

    assert len(told) == 4


def test_events_are_all_told(told: list[str], clock: FakeClock) -> None:
    """They are told as they are, and bounded elsewhere; so is what is no warning."""
    for number in range(3):
        log.warning("%s", f"event {number}")
        log.info("hello %d", number)

    assert len(told) == 6


def test_memory_is_bounded(told: list[str], clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_KINDS", 5)
    for number in range(100):
        log.error("fault of kind " + str(number))

    (filter_,) = log.handlers[0].filters
    assert len(told) == 100 and len(filter_._told) == 5  # type: ignore[union-attr]
