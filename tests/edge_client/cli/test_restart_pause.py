"""A service that fails again and again: it begins more and more slowly, on every version of systemd."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from edge_client.cli.restart_pause import (
    FILE,
    HEALABLE,
    MAX_PAUSE_S,
    RESTART_S,
    STEADY_S,
    Starts,
    next_start,
    pause_s,
    paused_restarts,
)
from edge_client.errors import ClientError, ConfigError, DiskError, ExitCode


class Service:
    """A unit that systemd starts again, with a clock that only pauses move."""

    def __init__(self, folder: Path) -> None:
        self.env = {"RUNTIME_DIRECTORY": f"{folder}:/elsewhere"}
        self.now_s = 100.0
        self.slept_s: list[float] = []
        self.told: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    def start(self, error: BaseException | None = None, lived_s: float = 1.0) -> None:
        """One start that lives for so long and ends so."""
        try:
            with paused_restarts(self.env, self.told.append, clock=lambda: self.now_s, sleep=self.sleep):
                self.now_s += lived_s
                if error is not None:
                    raise error
        except (ClientError, RuntimeError):
            self.now_s += RESTART_S


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_pauses_double_up_to_five_minutes() -> None:
    """What the client waits, and what systemd waits before it, together."""
    sums = [pause_s(n) + RESTART_S for n in range(1, 12)]

    assert sums == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0] + [MAX_PAUSE_S] * 5
    assert pause_s(0) == 0.0
    assert pause_s(10**6) == MAX_PAUSE_S - RESTART_S


def test_a_service_that_fails_again_and_again_waits_longer_each_time(service: Service) -> None:
    """Each failure counts, a crash without words too; it is told."""
    for error in (DiskError("full"), RuntimeError("bug"), DiskError("full"), DiskError("full")):
        service.start(error)

    assert service.slept_s == [5.0, 15.0]
    assert "ended 3 times in a row: begins again in 15 s" in service.told[-1]


def test_a_client_that_is_killed_counts_as_one_that_failed(service: Service, tmp_path: Path) -> None:
    """It could not say so: what the start before it wrote is still there."""
    (tmp_path / FILE).write_text('{"n_failed": 1, "at_s": 90.0}')

    service.start()

    assert service.slept_s == [5.0]


@pytest.mark.parametrize("ending", [None, ConfigError("mend it"), SystemExit(0)])
def test_an_end_that_is_not_started_again_is_forgotten(ending: BaseException | None, service: Service) -> None:
    """A finished run, a wrong setting, a stop: whoever starts it then is not kept waiting."""
    for _ in range(4):
        service.start(DiskError("full"))
    n_pauses = len(service.slept_s)

    if isinstance(ending, SystemExit):
        with pytest.raises(SystemExit):
            service.start(ending)
    else:
        service.start(ending)
    service.start(DiskError("full"))

    assert len(service.slept_s) == n_pauses + 1  # its own, and none after it


def test_a_week_of_work_makes_the_next_failure_a_first_one(service: Service) -> None:
    """Failures in a row are those of clients that never got going."""
    for _ in range(5):
        service.start(DiskError("full"))
    service.start(DiskError("full"), lived_s=STEADY_S)
    n_pauses = len(service.slept_s)

    service.start(DiskError("full"))

    assert len(service.slept_s) == n_pauses
    assert next_start(Starts(9, 0.0), STEADY_S - 1).n_failed == 10


def test_a_stop_during_the_pause_is_heeded(service: Service, tmp_path: Path) -> None:
    """SIGTERM ends it with status 0, and the count begins anew; the handler of before is back."""
    (tmp_path / FILE).write_text('{"n_failed": 3, "at_s": 90.0}')
    before = signal.getsignal(signal.SIGTERM)

    def stopped(seconds: float) -> None:
        signal.raise_signal(signal.SIGTERM)

    paused = paused_restarts(service.env, service.told.append, clock=lambda: 100.0, sleep=stopped)
    with pytest.raises(SystemExit) as caught, paused:
        raise AssertionError("it went on")

    assert caught.value.code == 0
    assert not (tmp_path / FILE).exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"n_failed": "x"}'])
def test_a_damaged_count_or_none_is_no_reason_to_wait(content: str, service: Service, tmp_path: Path) -> None:
    """Nor is a folder that is not there, or a client that no unit started."""
    (tmp_path / FILE).write_text(content)
    service.start()
    service.env = {"RUNTIME_DIRECTORY": str(tmp_path / "missing")}
    service.start(DiskError("full"))
    service.start(DiskError("full"))
    service.env = {}
    service.start(DiskError("full"))

    assert service.slept_s == []


def test_statuses_are_those_of_the_unit() -> None:
    """What the unit does not start again is no failure in a row."""
    assert {ExitCode.INTERNAL, ExitCode.UNREACHABLE, ExitCode.DISK, ExitCode.LOCKED} == HEALABLE
