"""What people and programs see: a live line on a terminal, rare plain lines in a log, JSON for programs."""

from __future__ import annotations

import io
import json
from typing import Any

from edge_client.agent.console import PLAIN_EVERY_S, Console, progress_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps(console: Console, n: int, tick: Any) -> None:
    for step in range(n + 1):
        console.progress(phase="train", round=3, step=step, steps=n, loss=2.0)
        tick()


def test_a_log_gets_few_progress_lines() -> None:
    """The first, the last, and one every PLAIN_EVERY_S between."""
    stream, now_s = io.StringIO(), [0.0]
    console = Console(stream=stream, clock=lambda: now_s[0])

    def tick() -> None:
        now_s[0] += 1.0

    steps(console, 25, tick)

    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 + int(25 // PLAIN_EVERY_S)
    assert "25/25" in lines[-1]
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_has_one_live_line_that_other_lines_do_not_break() -> None:
    """A line that comes between wipes the live one first."""
    stream, now_s = Terminal(), [0.0]
    console = Console(stream=stream, clock=lambda: now_s[0])
    console.progress(phase="train", round=1, step=0, steps=2)
    console.notice("the server went away")
    console.close()

    assert "\r\x1b[2Kthe server went away\n" in stream.getvalue()
    assert stream.getvalue().endswith("\n"), "nothing is left open"


def test_json_mode_prints_nothing_but_objects() -> None:
    """Every line is an object with an event."""
    stream = io.StringIO()
    console = Console(as_json=True, stream=stream)
    console.event("finished", "a text for people", rounds_done=2)
    console.notice("something")
    console.progress(phase="train", round=1, step=1, steps=2, loss=1.5)
    console.close()

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["finished", "notice", "progress"]


def test_a_phase_that_begins_anew_has_its_own_time_left() -> None:
    """An evaluation reads all texts for the loss, then writes all of them: the second pass has a clock of its own."""
    stream, now_s = io.StringIO(), [0.0]
    console = Console(stream=stream, clock=lambda: now_s[0])
    for step, second in ((0, 0.0), (10, 600.0), (0, 600.0), (5, 620.0)):
        now_s[0] = second
        console.progress(phase="evaluate", round=1, step=step, steps=10)

    assert stream.getvalue().splitlines()[-1].endswith("20 s left")


def test_progress_shows_time_left() -> None:
    """Half done after 30 seconds: 30 seconds are left."""
    assert "30 s left" in progress_text("train", 1, 5, 10, elapsed_s=30.0)


def test_what_has_no_rounds_names_its_phase_alone() -> None:
    """As a measurement has none."""
    assert progress_text("bench: train", None, 3, 3, elapsed_s=1.0).startswith("bench: train █")
