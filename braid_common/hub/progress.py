"""How far a download or a long reading is, told to a person: a live line on a terminal, elsewhere one now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from braid_common.units import show_seconds, show_size

LIVE_EVERY_S = 0.2
"""A terminal's line is redrawn at most this often."""

PLAIN_EVERY_S = 10.0
"""A line in a log at most this often."""


class Progress(Protocol):
    """A listener to a download."""

    def say(self, text: str) -> None:
        """Hears a sentence about what begins, or went wrong and goes on."""

    def moved(self, done_bytes: int, total_bytes: int) -> None:
        """Hears how much of all files is here."""


class StreamProgress:
    """Progress on a stream, standard error unless another is given: standard output is a command's own.

    `end`: what the bytes are at the end.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, *, end: str = "here"
    ) -> None:
        self._end = end
        self._stream = stream or sys.stderr
        self._is_live = self._stream.isatty()
        self._clock = clock
        self._began: tuple[float, int] | None = None  # when, and what was here then
        self._told_s = clock()

    def say(self, text: str) -> None:
        """Write a line of its own."""
        self._write(f"{self._wiped()}{text}\n")

    def moved(self, done_bytes: int, total_bytes: int) -> None:
        """Write what is here, how fast it comes and how long the rest takes; the end always, else not too often."""
        now_s = self._clock()
        if self._began is None:
            self._began = (now_s, done_bytes)
        is_done = done_bytes >= total_bytes
        if not is_done and now_s - self._told_s < (LIVE_EVERY_S if self._is_live else PLAIN_EVERY_S):
            return
        self._told_s = now_s
        began_s, began_bytes = self._began
        text = progress_line(done_bytes, total_bytes, now_s - began_s, done_bytes - began_bytes, self._end)
        self._write(f"{self._wiped()}{text}" + ("" if self._is_live and not is_done else "\n"))
        if is_done:
            self._began = None

    def _wiped(self) -> str:
        return "\r\x1b[2K" if self._is_live else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def progress_line(done_bytes: int, total_bytes: int, elapsed_s: float, moved_bytes: int, end: str = "here") -> str:
    """ "12.0 MiB of 294 MiB, 3.1 MiB/s, 1 min 31 s left"; at the end how long it took."""
    if done_bytes >= total_bytes:
        return f"  {show_size(total_bytes)} are {end}, after {show_seconds(elapsed_s)}"
    text = f"  {show_size(done_bytes)} of {show_size(total_bytes)}"
    if elapsed_s > 0 and moved_bytes > 0:
        speed = moved_bytes / elapsed_s
        text += f", {show_size(speed)}/s, {show_seconds(int((total_bytes - done_bytes) / speed))} left"
    return text
