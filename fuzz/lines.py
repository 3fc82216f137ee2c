"""Lines of JSON by which the process of a target tells how far it is and what it has found."""

from __future__ import annotations

import msgspec


class Progress(msgspec.Struct, tag=True):
    """Counts so far, and seconds left. `is_last`: time is up."""

    inputs: int
    slowest_s: float
    peak_bytes: int
    left_s: float
    outcomes: dict[str, int]
    is_last: bool = False


class Found(msgspec.Struct, tag=True):
    """A find, and its traceback where it has one."""

    kind: str
    where: str
    message: str
    file: str
    trace: str = ""
