"""The memory of a running server: the newest version, the open round, the boards, and what people are told."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from aggregator.merge.state import AdapterState, strand_values
from aggregator.run.broadcast import Broadcast
from aggregator.run.open_round import OpenRound
from aggregator.run.restore import rebuild, rebuild_boards
from aggregator.run.round_spec import PROFILING
from aggregator.run.screen import Sizes
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.storage import Storage
from braid_common.units import printable
from wire.rounds import RunState

MAX_EVENTS = 200
"""Events kept for the status page."""

log = logging.getLogger("aggregator")


class RunMemory:
    """Rebuilt from the store at the start, and changed under `writing` alone. Reading needs no lock: what is read is
    immutable and replaced whole.

    Attributes:
        state: the newest version.
        values: its strands' values, as boards are told them.
        open_round: the round that takes updates, or profiling; None between rounds and after the last.
        closed: the last round that is over.
        late: the closed rounds whose updates still count.
        last_sizes: sizes of the last round's updates, which are not stored: lost by a restart.
        writing: the one lock of whoever changes the store or this.
        changed: sent when something happened that the schedule should look at.
    """

    def __init__(self, config: RunConfig, terms: Terms, storage: Storage, clock: Callable[[], float]) -> None:
        self.config, self.terms, self.storage, self.clock = config, terms, storage, clock
        self.events: deque[str] = deque(maxlen=MAX_EVENTS)
        self.writing = asyncio.Lock()
        self.changed = Broadcast()
        self.last_sizes: tuple[Sizes, ...] = ()
        storage.blobs.sweep(storage.records.live_digests())
        restored = rebuild(config, terms, storage, clock())
        self.take(restored.state)
        self.open_round: OpenRound | None = restored.open_round
        self.closed, self.late = restored.closed, restored.late
        self.run_state = RunState.PROFILING if restored.state.version == 0 else RunState.TRAINING
        self.boards = rebuild_boards(storage.records, config.rounds.liveness_s, clock())
        self.begin_profiling_deadline()
        storage.uploads.sweep({*self.late.rounds, *([self.open_round.round] if self.open_round else [])})
        if len(self.boards):
            self.note(f"server restarted at version {self.state.version}, {len(self.boards)} boards known")

    def take(self, state: AdapterState) -> None:
        """Make a version the newest."""
        self.state = state
        self.values = strand_values(state)

    def begin_profiling_deadline(self) -> None:
        """Let the deadline of profiling run, if enough boards have enrolled."""
        open_round, enough = self.open_round, len(self.boards) >= self.config.rounds.min_devices
        if open_round is not None and open_round.round == PROFILING and enough:
            self.open_round = open_round.with_beginning(self.clock())

    def note(self, text: str, level: int = logging.INFO) -> None:
        """Tell people: in the log and on the status page."""
        line = printable(text)
        log.log(level, "%s", line)
        self.events.append(line)
