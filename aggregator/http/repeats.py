"""A filter of logs: what fails again and again is told once a minute."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

AGAIN_AFTER_S = 60.0

MAX_KINDS = 200
"""Kinds of messages that are remembered."""

_FREE_TEXT = "%s"
"""The message of events, whose number is bounded where they are made: it does not say which kind they are of."""


class Repeats(logging.Filter):
    """Drops warnings and errors of a kind that was told within the last AGAIN_AFTER_S; the next one says how many.

    A kind is what the program wrote into its message, not what it filled in, and the type of the exception.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._told: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()  # when, and how many since

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or (record.msg == _FREE_TEXT and not record.exc_info):
            return True
        kind = record.exc_info[0] if record.exc_info else None
        key = (record.name, record.levelno, str(record.msg).partition("\n")[0], kind)
        at, dropped = self._told.get(key, (None, 0))
        now = self._clock()
        if at is not None and now - at < AGAIN_AFTER_S:
            self._told[key] = (at, dropped + 1)
            return False
        self._told[key] = (now, 0)
        self._told.move_to_end(key)
        if len(self._told) > MAX_KINDS:
            self._told.popitem(last=False)
        if dropped:
            record.msg, record.args = f"{record.getMessage()} (and {dropped} more like it before)", ()
        return True
