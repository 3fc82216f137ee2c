"""The pause of a service that was started again and again without success: longer each time, up to five minutes.

systemd counts restarts, and waits longer by itself only from version 254 on; boards have older ones. So the client
counts in the folder that its unit keeps from one automatic start to the next (RuntimeDirectoryPreserve=restart), which
systemd names in RUNTIME_DIRECTORY. Whoever starts a client by hand has no such folder, and never waits.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from braid_common.atomic_file import write_atomically
from braid_common.json_file import read_small
from braid_common.units import show_seconds
from edge_client.errors import ClientError, ExitCode

FILE = "starts.json"

RESTART_S = 5.0
"""RestartSec= of deploy/edge-client.service: systemd's own part of every pause."""

MAX_PAUSE_S = 300.0
"""Between two starts at most: a board that was mended is back within five minutes."""

STEADY_S = 600.0
"""A client that lived for so long had started well: the next failure is a first one."""

HEALABLE = frozenset((ExitCode.INTERNAL, ExitCode.UNREACHABLE, ExitCode.DISK, ExitCode.LOCKED))
"""Statuses that the unit starts again after; all others are not in its RestartPreventExitStatus= for nothing."""


class Starts(msgspec.Struct, frozen=True):
    """The newest start of a service.

    Attributes:
        n_failed: starts before it that ended badly, one after another.
        at_s: when it began, by the clock that runs since the board was switched on.
    """

    n_failed: int
    at_s: float


def pause_s(n_failed: int) -> float:
    """Seconds to wait beside RESTART_S after so many failures in a row; the sum doubles, up to MAX_PAUSE_S."""
    if n_failed < 1:
        return 0.0
    return float(min(MAX_PAUSE_S, RESTART_S * 2.0 ** min(n_failed - 1, 60))) - RESTART_S


def next_start(before: Starts | None, now_s: float) -> Starts:
    """The start that follows another one, which ended badly; the first where there was none."""
    if before is None:
        return Starts(0, now_s)
    n_failed = 1 if now_s - before.at_s >= STEADY_S else before.n_failed + 1
    return Starts(n_failed, now_s + pause_s(n_failed))


@contextmanager
def paused_restarts(
    env: Mapping[str, str],
    tell: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Wait before a client that keeps failing begins again, and count how it ends.

    SIGTERM during the pause ends the process with status 0, and the next start begins at once.
    """
    folder = env.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if not folder:
        yield
        return
    path = Path(folder) / FILE
    start = next_start(read_small(path, Starts), clock())
    with suppress(OSError):  # a folder that cannot be written counts nothing: RESTART_S is what remains
        write_atomically(path, msgspec.json.encode(start))
    try:
        _wait(pause_s(start.n_failed), start.n_failed, tell, sleep)
        yield
    except ClientError as error:
        if error.exit_code not in HEALABLE:
            path.unlink(missing_ok=True)
        raise
    except SystemExit:
        path.unlink(missing_ok=True)
        raise
    else:
        path.unlink(missing_ok=True)


def _wait(seconds: float, n_failed: int, tell: Callable[[str], None], sleep: Callable[[float], None]) -> None:
    if not seconds:
        return

    def stop(number: int, frame: object) -> None:
        raise SystemExit(0)

    tell(f"ended {n_failed} times in a row: begins again in {show_seconds(round(seconds))}")
    before = signal.signal(signal.SIGTERM, stop)
    try:
        sleep(seconds)
    finally:
        signal.signal(signal.SIGTERM, before)
