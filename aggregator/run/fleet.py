"""The enrolled boards as the running server knows them: when each was heard of, what it last said, what it has cost."""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from aggregator.run.identity.sessions import Sessions
from aggregator.store.records import Answer, Device, StoredReport, Traffic
from braid_common.metrics import ROUND_COSTS
from wire.errors import WireError
from wire.messages import Report
from wire.text_lengths import TextLengths

NUMBERS = ("step", "steps", "loss", "tokens_per_s", "peak_bytes", "budget_bytes", "predicted_peak_bytes")
"""The numbers of a board's plan and progress that are kept. Boards choose their words; memory must not."""

MAX_NUMBER = 1e15
"""Larger numbers, and negative ones, are no losses, counts or bytes, and are not kept."""

LARGEST_STATUS = 255
"""Exit statuses of Linux; what a board calls one and is not, counts as 1."""

_FORMAT = re.compile(r"\b(fp32|bf16|int8|nf4|int4)\b")


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a board's client, as it told of it. `status`: its exit status, 0 where it was asked to stop; `at`:
    seconds since 1970, for people."""

    status: int
    reason: str
    at: float

    @classmethod
    def of(cls, report: StoredReport) -> Ending:
        """The ending that a report of kind "ended" tells of."""
        status = report.values.get("exit_status", 1.0)
        known = status == int(status) and 0 <= status <= LARGEST_STATUS
        return cls(int(status) if known else 1, report.text, report.received_at)


@dataclass(slots=True, eq=False)
class Board:
    """One enrolled device, for people to look at. Nothing here decides what is merged."""

    device: str
    name: str
    seen_s: float | None = None  # monotonic clock; None: not since the server started
    revoked: bool = False
    has_left: bool = False
    polls: int = 0  # long polls that are open
    bytes_up: int = 0
    bytes_down: int = 0
    requests: int = 0
    plan: str = ""
    ranks: tuple[int, ...] = ()
    progress: Mapping[str, float] = field(default_factory=dict)
    progress_text: str = ""
    event: str = ""  # the last one that it told of, such as that memory ran short; lost by a restart
    lengths: TextLengths | None = None  # of its texts
    losses: dict[int, Mapping[str, float]] = field(default_factory=dict)  # version → evaluation
    accepted: int = 0
    refused: int = 0
    reason: str = ""  # of the last refusal
    staleness: int | None = None  # versions that its last accepted update was behind; lost by a restart
    claims: float | None = None  # examples, by its loss too if the run is fair, in its last round; lost by a restart
    counts_as: float | None = None  # the weight that it had there
    ending: Ending | None = None  # why it left, until it comes back
    sessions: Sessions = field(default_factory=Sessions)  # of its client's starts; lost by a restart
    next_credential: str | None = None  # the hash of the one that it is about to use
    credential_at: float = 0.0  # when the one in use was first heard of, seconds since 1970
    renewed_s: float = -math.inf  # when it used its next credential for the first time, monotonic clock

    @property
    def format(self) -> str:
        """The base's format, as named in the plan."""
        match = _FORMAT.search(self.plan)
        return match.group(1) if match else ""

    @property
    def is_bounded(self) -> bool:
        """Whether it counted as less than it claimed."""
        return self.claims is not None and self.counts_as is not None and self.counts_as < self.claims

    @property
    def gave_up(self) -> bool:
        """Whether it said that it cannot go on; one that was stopped may be started again at any moment."""
        return self.ending is not None and self.ending.status != 0

    def hear(self, report: Report) -> None:
        """Take in those of a report's numbers that can be true. Raises WireError for lengths that cannot."""
        values = {name: value for name, value in report.values.items() if 0 <= value <= MAX_NUMBER}
        if report.kind == "plan":
            self.plan = report.text
        elif report.kind == "evaluation":
            self.losses[report.version] = {name: values[name] for name in values if name not in ROUND_COSTS}
        elif report.kind == "data":
            self.lengths = TextLengths.from_values(values)
        elif report.kind == "event":
            self.event = report.text
        else:
            self.progress_text = report.text
        if report.kind in ("plan", "progress"):
            self.progress = {**self.progress, **{name: values[name] for name in NUMBERS if name in values}}

    def note(self, answer: Answer) -> None:
        """Count an answer."""
        self.accepted += answer.accepted
        self.refused += not answer.accepted
        if answer.accepted:
            self.staleness = answer.staleness
        else:
            self.reason = answer.reason


class Boards:
    """All enrolled boards by device id."""

    def __init__(self, liveness_s: float) -> None:
        self._liveness_s = liveness_s
        self._boards: dict[str, Board] = {}
        self._names: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Board]:
        return iter(self._boards.values())

    def __len__(self) -> int:
        return len(self._boards)

    def __contains__(self, device: object) -> bool:
        return device in self._boards

    def __getitem__(self, device: str) -> Board:
        return self._boards[device]

    def add(self, device: Device) -> Board:
        """Know a device; one that is known keeps its numbers and takes the new name."""
        board = self._boards.get(device.device)
        if board is None:
            board = Board(device=device.device, name=device.name)
            board.bytes_up, board.bytes_down, board.requests = device.bytes_up, device.bytes_down, device.requests
            self._boards[device.device] = board
        else:
            self._names[board.name] -= 1
        self._names[device.name] += 1
        board.name, board.revoked, board.has_left = device.name, device.revoked, device.has_left
        board.next_credential, board.credential_at = device.next_credential, device.credential_at
        return board

    def remove(self, board: Board) -> None:
        """Forget a device."""
        self._names[board.name] -= 1
        del self._boards[board.device]

    def label(self, board: Board) -> str:
        """The words by which people know a board: its name, and its id behind it where another has the same name."""
        return board.name if self._names[board.name] < 2 else f"{board.name} ({board.device})"

    def label_of(self, device: str) -> str:
        """The words by which people know a device; its id where it was removed."""
        return self.label(self._boards[device]) if device in self._boards else device

    def restore(self, reports: Iterable[StoredReport]) -> None:
        """Take in what boards had reported before a restart, oldest first."""
        for stored in reports:
            if stored.device not in self._boards:  # removed while it reported
                continue
            if stored.kind == "ended":
                self._boards[stored.device].ending = Ending.of(stored)
                continue
            report = Report(
                kind=cast(Literal["plan", "evaluation", "data"], stored.kind),
                round=stored.round,
                version=stored.version,
                text=stored.text,
                values=dict(stored.values),
            )
            with contextlib.suppress(WireError):  # lengths that a newer program stored: the board tells them again
                self._boards[stored.device].hear(report)

    def live(self, now: float) -> frozenset[str]:
        """Devices heard of within the liveness time."""
        return frozenset(board.device for board in self._boards.values() if self.is_live(board, now))

    def is_live(self, board: Board, now: float) -> bool:
        """Whether a board may still answer: it was heard of lately, and has not said that it gives up."""
        if board.revoked or board.has_left or board.gave_up or board.seen_s is None:
            return False
        return now - board.seen_s < self._liveness_s

    def next_expiry_s(self, now: float) -> float | None:
        """When the next live board stops being live if it stays silent."""
        seen = [b.seen_s for b in self._boards.values() if b.seen_s is not None and self.is_live(b, now)]
        return min(seen) + self._liveness_s if seen else None

    def text_lengths(self) -> list[TextLengths]:
        """The lengths that boards which take part have told of their texts."""
        return [board.lengths for board in self if board.lengths is not None and not board.revoked]

    def losses_before(self, answers: Iterable[Answer], version: int) -> dict[str, float]:
        """The loss that boards have told of the version that they trained on, by device; those that told none are
        absent. `version`: the one of the round that these answers count in."""
        found = {}
        for answer in answers:
            told = self._boards[answer.device].losses if answer.device in self._boards else {}
            if "loss" in (values := told.get(version - answer.staleness, {})):
                found[answer.device] = values["loss"]
        return found

    def traffic(self) -> dict[str, Traffic]:
        """Traffic so far per device."""
        return {board.device: Traffic(board.bytes_up, board.bytes_down, board.requests) for board in self}
