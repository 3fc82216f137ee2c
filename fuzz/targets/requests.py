"""Requests to a running server through a socket, whole, damaged, or no HTTP at all: answered or ended within a second.

None may be answered with a fault of ours (500), leave a traceback in the log, keep a connection or stop the server from
serving others. REQUESTS lifts the guard's limits, which would hide what lies behind them; CROWDS has them, while the
run still profiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from aggregator.http.guard.buckets import Rate
from aggregator.http.guard.limits import Limits
from fuzz.contract import Judge, Target
from fuzz.door.door import Door
from fuzz.door.mutations import mutate_requests
from fuzz.tiny_base import write_tiny_base

_NONE = Rate(per_s=1e9, burst=1e9)

NO_LIMITS = Limits(
    arrivals=_NONE,
    stranger_calls=_NONE,
    enrolments=_NONE,
    failed_logins=_NONE,
    calls=_NONE,
    notes=_NONE,
    writes=_NONE,
    work=_NONE,
)
"""The guard without its rates: every request reaches its handler."""


def _opener(limits: Limits, *, trains: bool) -> Callable[[Path], AbstractContextManager[Judge]]:
    @contextmanager
    def opened(folder: Path) -> Iterator[Judge]:
        write_tiny_base(folder / "base")
        door = Door(folder, folder / "base", limits, trains=trains)
        door.open()
        try:
            yield Judge(door.check, door.rest)
        finally:
            door.close()

    return opened


REQUESTS = Target(
    name="requests",
    about="bytes through a socket to a server whose round is open, without limits on how many",
    max_bytes=8192,
    open=_opener(NO_LIMITS, trains=True),
    mutate=mutate_requests,
)

CROWDS = Target(
    name="crowds",
    about="the same to a server that still profiles, with its limits",
    max_bytes=8192,
    open=_opener(Limits(), trains=False),
    mutate=mutate_requests,
)
