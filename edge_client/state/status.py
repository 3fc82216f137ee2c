"""The status of a client, in a file that `edge-client status` and dashboards read."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from braid_common.atomic_file import open_private
from braid_common.json_file import read_small
from edge_client.errors import DiskError, disk_errors
from edge_client.state.folder import StateFolder

WRITE_EVERY_S = 1.0
"""At most one write a second: flash wears, and nobody reads faster."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The newest state of a client. `updated_unix_s` is the board's own clock, for people; nothing decides by it.
    `waits`: why training pauses, "" where it does not."""

    phase: str = "starting"
    waits: str = ""
    server: str = ""
    device: str = ""
    run_id: str = ""
    online: bool = False
    rounds_done: int = 0
    round: int = 0
    rounds: int = 0
    version: int = 0
    format: str = ""
    ranks_total: int = 0
    max_rank: int = 0
    predicted_peak_bytes: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    tokens_per_s: float = 0.0
    peak_bytes: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    pid: int = 0
    updated_unix_s: float = 0.0


class StatusFile:
    """The status of the running client; changes are gathered and written at most every WRITE_EVERY_S."""

    def __init__(
        self,
        folder: StateFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._clock, self._now_unix_s = folder, clock, now_unix_s
        self._written_s = -WRITE_EVERY_S
        self.status = Status()

    def update(self, *, at_once: bool = False, **changes: Any) -> None:
        """Change fields by name. `at_once` for changes of phase. A disk that does not take them stops nothing: whatever
        has to be kept says so itself."""
        self.status = msgspec.structs.replace(self.status, **changes)
        if at_once or self._clock() - self._written_s >= WRITE_EVERY_S:
            self._written_s = self._clock()
            whole = msgspec.structs.replace(self.status, updated_unix_s=self._now_unix_s())
            with suppress(DiskError):
                self._write(msgspec.json.encode(whole))

    def _write(self, data: bytes) -> None:
        # Whole or not at all for readers, but without fsync: a status lost in a power cut is no loss, flash wears.
        path = self._folder.path / "status.json"
        with disk_errors(path):
            fresh = path.with_suffix(".json.new")
            with open(fresh, "wb", opener=open_private) as file:
                file.write(data)
            fresh.replace(path)


def read_status(folder: Path) -> Status | None:
    """The last status written, None where there is none that can be read."""
    return read_small(folder / "status.json", Status)
