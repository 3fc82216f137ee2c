"""Pauses of the training worker: its parent asks for one as a shell does, by SIGTSTP, and ends it by SIGCONT.

The worker does not stop where it stands but between two steps, with its place saved. It then tells its parent and
waits. SIGTERM ends a pause as well: the worker leaves.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

LOOK_EVERY_S = 1.0
"""How long a paused worker sleeps at a time. A signal that reaches one of torch's threads does not wake it, so it looks
this often whether it may go on: some ten microseconds of work."""


class Pause:
    """Whether this process is to pause.

    Args:
        parked: called when the process begins to wait.
        wants_stop: whether it is to end, which ends a pause.
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        parked: Callable[[], None],
        wants_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._parked, self._wants_stop, self._clock, self._sleep = parked, wants_stop, clock, sleep
        self._is_wanted = False
        self._waited_s = 0.0

    def listen(self) -> None:
        """Take the two signals from now on."""
        signal.signal(signal.SIGTSTP, self._take)
        signal.signal(signal.SIGCONT, self._take)

    def is_wanted(self) -> bool:
        """Whether a pause is asked for."""
        return self._is_wanted

    def wait(self) -> None:
        """Wait while a pause is asked for."""
        if not self._is_wanted or self._wants_stop():
            return
        begin_s = self._clock()
        self._parked()
        while self._is_wanted and not self._wants_stop():
            self._sleep(LOOK_EVERY_S)
        self._waited_s += self._clock() - begin_s

    def clock(self) -> float:
        """Monotonic seconds without those of pauses."""
        return self._clock() - self._waited_s

    def _take(self, number: int, _: FrameType | None) -> None:
        self._is_wanted = number == signal.SIGTSTP
