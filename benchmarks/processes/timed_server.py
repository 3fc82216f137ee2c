"""`aggregator` with a clock at its event loop: the long turns, in the thread's processor time, go to a file at its end.

    python -m benchmarks.processes.timed_server TURNS serve DIR …

Each turn ends when the loop asks the system again for what has come. On a machine that others use as well, the time on
the wall says little about the server; this says what it did itself before it looked again.
"""

from __future__ import annotations

import json
import selectors
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LONG_S = 0.001
"""Shorter turns are not noted."""


class TimedSelector(selectors.DefaultSelector):
    """The system's selector; `turns` has when each long turn ended, in monotonic seconds, and its processor time."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[tuple[float, float]] = []
        self._began_s = time.thread_time()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        took_s = time.thread_time() - self._began_s
        if took_s >= LONG_S:
            self.turns.append((time.monotonic(), took_s))
        ready = super().select(timeout)
        self._began_s = time.thread_time()
        return ready


def longest_s(path: Path, began_s: float, ended_s: float) -> float:
    """The longest of the turns in a file that ended within this time; 0 where all of them were short."""
    turns: Iterable[tuple[float, float]] = json.loads(path.read_text())
    return max((took_s for at_s, took_s in turns if began_s <= at_s <= ended_s), default=0.0)


def main() -> None:
    from aggregator.cli import main as aggregator

    path, made = Path(sys.argv.pop(1)), list[TimedSelector]()

    def make(*arguments: Any) -> TimedSelector:
        made.append(TimedSelector(*arguments))
        return made[-1]

    setattr(selectors, "DefaultSelector", make)  # noqa: B010 - mypy takes it for a class that nobody replaces
    try:
        aggregator()
    finally:
        path.write_text(json.dumps([turn for each in made for turn in each.turns]))


if __name__ == "__main__":
    main()
