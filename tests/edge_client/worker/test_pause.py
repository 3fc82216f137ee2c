"""Pauses of a process by the signals of a shell's job control."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.worker.pause import LOOK_EVERY_S, Pause
from tests.fakes.clock import FakeClock

ROOT = Path(__file__).parents[3]

WAITS = """
import sys, time
from edge_client.worker.pause import Pause

pause = Pause(lambda: print("parked", flush=True), lambda: False, sleep=lambda _: time.sleep(0.01))
pause.listen()
print("listens", flush=True)
while not pause.is_wanted():
    time.sleep(0.01)
pause.wait()
print("goes on", flush=True)
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, as the training worker is, that waits as soon as it is asked to."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    yield process
    process.kill()
    process.communicate()


def said(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def test_a_process_waits_and_goes_on_as_it_is_told(worker: subprocess.Popen[str]) -> None:
    assert said(worker) == "listens"
    worker.send_signal(signal.SIGTSTP)
    assert said(worker) == "parked"
    worker.send_signal(signal.SIGCONT)

    assert said(worker) == "goes on" and worker.wait(10) == 0


def test_a_process_that_does_not_listen_yet_is_not_harmed() -> None:
    """In a session of its own the signal is ignored rather than taken for a stop, so it can be sent at any time."""
    script = "import sys; print('here', flush=True); sys.stdin.readline(); print('alive', flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert said(process) == "here"
    process.send_signal(signal.SIGTSTP)

    assert process.communicate("\n", timeout=10)[0] == "alive\n" and process.returncode == 0


class Process:
    """A process that is asked to pause for three looks."""

    def __init__(self, *, stops_after: int = 10) -> None:
        self.clock, self.parked, self.looks, self.stops_after = FakeClock(), 0, 0, stops_after
        self.pause = Pause(self._park, lambda: self.looks >= self.stops_after, self.clock, self._sleep)

    def ask(self) -> None:
        self.pause._take(signal.SIGTSTP, None)

    def _park(self) -> None:
        self.parked += 1

    def _sleep(self, delay_s: float) -> None:
        self.clock.advance(delay_s)
        self.looks += 1
        if self.looks == 3:
            self.pause._take(signal.SIGCONT, None)


def test_the_time_of_a_pause_does_not_count() -> None:
    """Else a board that paused would tell its server that it is slow."""
    process = Process()
    before_s = process.pause.clock()
    process.pause.wait()
    assert process.parked == 0, "nobody has asked"

    process.ask()
    process.pause.wait()
    process.clock.advance(7.0)

    assert process.parked == 1 and process.looks == 3
    assert process.clock() - 1000.0 == 3 * LOOK_EVERY_S + 7.0
    assert process.pause.clock() - before_s == 7.0


def test_a_stop_ends_the_wait() -> None:
    process = Process(stops_after=2)
    process.ask()

    process.pause.wait()

    assert process.looks == 2 and process.pause.is_wanted()
