"""The file of the state folder that keeps the measured speed of this board's matrix products."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from braid_common.json_file import read_small
from edge_client.errors import ClientError, DiskError
from edge_client.host.matmul_measure import measure_matmul_speed
from edge_client.host.matmul_speed import MatmulSpeed, matmul_key
from edge_client.state.folder import StateFolder

FILE = "matmul_speed.json"


def read_matmul_speed(folder: Path, threads: int | None = None, root: Path = Path("/")) -> MatmulSpeed | None:
    """Speed that was measured on this very board, None where nothing fits. `threads` None takes any number."""
    kept = read_small(folder / FILE, MatmulSpeed)
    if kept is None or kept.key != matmul_key(kept.threads if threads is None else threads, root):
        return None
    return kept


def ensure_matmul_speed(folder: StateFolder, threads: int, tell: Callable[[str], None]) -> MatmulSpeed | None:
    """The speed kept in `folder`, which is locked, or a new measurement that is kept there. None where there is
    neither: the processor's flags then decide, until the next start."""
    speed = read_matmul_speed(folder.path, threads)
    if speed is None and matmul_key(threads) is not None:
        tell("measuring this board's arithmetic (a few seconds, once)…")
        speed = measure_matmul_speed(threads)
        if speed is None:
            tell("the board is too busy to measure its arithmetic: the processor's flags decide until the next start")
        else:
            with suppress(DiskError):  # measured again at the next start
                folder.write(FILE, msgspec.json.encode(speed))
    return speed


def look_up_matmul_speed(folder: Path) -> MatmulSpeed | None:
    """The speed kept in `folder`, else a measurement that is not kept, for commands that look only. None where neither
    can be had: whoever only looks gets the processor's flags instead of an error."""
    try:
        return read_matmul_speed(folder) or measure_matmul_speed()
    except ClientError:
        return None
