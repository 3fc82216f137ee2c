"""The memory of a running server: the newest version, the open round, the boards, and what people are told."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path

from aggregator.errors import StateError
from aggregator.merge.state import AdapterState, strand_values
from aggregator.run import lengths
from aggregator.run.broadcast import Broadcast
from aggregator.run.intake.inbox import Inbox
from aggregator.run.open_round import OpenRound
from aggregator.run.restore import rebuild, rebuild_boards
from aggregator.run.round_spec import PROFILING
from aggregator.run.screen import Sizes
from aggregator.run.upkeep.short_writes import ShortWrites
from aggregator.run.upkeep.trouble import Trouble
from aggregator.settings.config import RunConfig
from aggregator.settings.keys import MAX_DEVICES
from aggregator.settings.terms import Terms
from aggregator.store.storage import Storage
from braid_common.units import printable
from wire.proof import empty_history, next_history
from wire.rounds import RunState
from wire.run import TrainSettings

MAX_EVENTS = 200
"""Events kept for the status page."""

FULL = (
    f"the fleet is full, {MAX_DEVICES:,} devices: `aggregator device list DIR` shows them, and "
    "`aggregator device remove DIR DEVICE…` makes room"
)
"""The sentence about a fleet that takes no more boards."""

LENGTHS_FACT = "lengths"
"""Name of the chosen lengths in the store."""

log = logging.getLogger("aggregator")


class RunMemory:
    """Rebuilt from the store at the start, and changed under `writing` alone. Reading needs no lock: what is read is
    immutable and replaced whole.

    Attributes:
        state: the newest version.
        digest: of its file; "" for version 0.
        values: its strands' values, as boards are told them.
        history: the chain's value of all versions up to it (`wire.proof`).
        epoch: this start of the server. What a board says it knows of a round, it may know from one that was undone.
        train: how boards train; its lengths are 0 until they are chosen, where run.toml leaves them open.
        lengths_since_s: when the first board told its text's lengths; None before.
        open_round: the round that takes updates, or profiling; None between rounds and after the last.
        closed: the last round that is over.
        late: the closed rounds whose updates still count.
        last_sizes: sizes of the last round's updates, which are not stored: lost by a restart.
        is_merging: the open round is being merged, and takes nothing more.
        inbox: uploads that are not judged yet.
        losses: sentences about files that were found missing or damaged since the start.
        trouble: what the disk refuses now.
        damaged_base: sentences about files of the base that are damaged or missing now, by their paths.
        writing: the lock of whoever judges, or opens and closes rounds.
        short_writes: the lock of whoever writes rows and files of boards. Who holds both took `writing` first.
        changed: sent when something happened that the schedule should look at.
    """

    def __init__(self, config: RunConfig, terms: Terms, storage: Storage, clock: Callable[[], float]) -> None:
        self.config, self.terms, self.storage, self.clock = config, terms, storage, clock
        self.events: deque[str] = deque(maxlen=MAX_EVENTS)
        self.writing = asyncio.Lock()
        self.short_writes = ShortWrites()
        self.epoch = secrets.token_hex(8)
        self.is_merging = False
        self.trouble = Trouble()
        self.damaged_base: dict[Path, str] = {}
        self.changed = Broadcast()
        self.last_sizes: tuple[Sizes, ...] = ()
        self._first_chained = self._chained = 0, empty_history(terms.run_id, config.model.digest, terms.manifest)
        storage.blobs.sweep(storage.records.live_digests())
        restored = rebuild(config, terms, storage, clock())
        self.take(restored.state, restored.digest)
        self.losses = list(restored.losses)
        self.inbox = Inbox(storage.records.received())
        self.open_round: OpenRound | None = restored.open_round
        self.closed, self.late = restored.closed, restored.late
        self.run_state = RunState.PROFILING if restored.state.version == 0 else RunState.TRAINING
        self.boards = rebuild_boards(storage.records, config.rounds.liveness_s, clock())
        self.train = settled_train(config, storage.records.fact(LENGTHS_FACT))
        self.lengths_since_s = clock() if self.boards.text_lengths() else None
        self._warned_of: frozenset[str] = frozenset()
        self.begin_profiling_deadline()
        storage.uploads.sweep({*self.late.rounds, *([self.open_round.round] if self.open_round else [])})
        for loss in self.losses:
            self.note(loss, level=logging.ERROR)
        if len(self.boards):
            self.note(f"server restarted at version {self.state.version}, {len(self.boards)} boards known")
        self.warn_of_cuts()

    @property
    def takes_updates(self) -> bool:
        """Whether an update of the open round may still come: not once it is merged, but as a late one."""
        return not self.is_merging or self.late.limit > 0

    def take(self, state: AdapterState, digest: str) -> None:
        """Make a version the newest."""
        self.state, self.digest = state, digest
        self.values = strand_values(state)
        self.history = self._history_until(state.version)

    def _history_until(self, version: int) -> str:
        """The chain's value up to a version, which is the newest."""
        before, value = self._chained
        if before > version:  # the server went back
            before, value = self._first_chained
        for number, digest in self.storage.records.history(before):
            if number <= version:
                before, value = number, next_history(value, number, digest)
        self._chained = before, value
        return value

    def begin_profiling_deadline(self) -> None:
        """Let the deadline of profiling run, if enough boards have enrolled and know how long texts may be."""
        open_round = self.open_round
        enough = len(self.boards) >= self.config.rounds.min_devices and self.train.has_lengths
        if open_round is not None and open_round.round == PROFILING and enough:
            self.open_round = open_round.with_beginning(self.clock())

    @property
    def waiting_for(self) -> str:
        """The reports that keep boards from work while the run's lengths are open; "" for none."""
        if self.train.has_lengths:
            return ""
        return lengths.waiting(len(self.boards.text_lengths()), self.config.rounds)

    @property
    def warnings(self) -> list[str]:
        """Faults of the run that people should mend, each with what to do about it."""
        found = list(lengths.warnings(self.boards.text_lengths(), self.train).values())
        full = [FULL] * (len(self.boards) >= MAX_DEVICES)
        trouble = [self.trouble.text] if self.trouble.text else []
        return [*trouble, *self.damaged_base.values(), *self.losses, *full, *found]

    def base_is_damaged(self, path: Path) -> None:
        """Tell people of a file of the base that cannot be sent, once, until it is put back."""
        if path not in self.damaged_base:
            sentence = f"{path} is damaged or missing: put the base's file back; boards that need it wait"
            self.damaged_base[path] = sentence
            self.note(sentence, level=logging.ERROR)

    def base_is_sound(self, path: Path) -> None:
        """A file of the base can be sent."""
        if self.damaged_base.pop(path, None):
            self.note(f"{path} is sound again")

    def heard_lengths(self) -> None:
        """A board has told its text's lengths: they may be what the run waits for, or more than it can hold."""
        if self.lengths_since_s is None:
            self.lengths_since_s = self.clock()
        self.warn_of_cuts()
        self.changed.send()

    def warn_of_cuts(self) -> None:
        """Tell people once, when most of the fleet's sources or targets turn out to be cut."""
        found = lengths.warnings(self.boards.text_lengths(), self.train)
        for side in found.keys() - self._warned_of:
            self.note(found[side], level=logging.WARNING)
        self._warned_of = frozenset(found)

    def note(self, text: str, level: int = logging.INFO) -> None:
        """Tell people: in the log and on the status page."""
        line = printable(text)
        log.log(level, "%s", line)
        self.events.append(line)


def settled_train(config: RunConfig, stored: str | None) -> TrainSettings:
    """How boards train: as run.toml says, with the lengths that were chosen where it leaves them open. Raises
    StateError where what is `stored` of them is damaged."""
    if stored is None:
        return config.train
    try:
        return lengths.ChosenLengths.decode(stored).fill(config.train)
    except ValueError as error:  # msgspec's errors are some
        raise StateError(
            f"The lengths that the run has chosen cannot be read: {error}", "Restore the folder from a backup."
        ) from error
