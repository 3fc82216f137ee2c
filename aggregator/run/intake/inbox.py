"""Uploads that are on the disk and wait to be judged, and the boards that wait for their judgement."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from aggregator.errors import CallError
from aggregator.run.round_spec import PROFILING
from aggregator.store.records import Received

MAX_FAILURES = 3
"""Uploads of one device for one round that no answer can be given to. A round does not close over uploads that wait:
whoever sends what cannot be read, again and again, must not hold it."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """The last upload of a device, to which no answer could be given; `count`: how many of its round there were."""

    received: Received
    error: CallError
    count: int


class Inbox:
    """The uploads in the order in which they came, one per device at most."""

    def __init__(self, received: Iterable[Received] = ()) -> None:
        self._waiting: OrderedDict[str, Received] = OrderedDict((each.device, each) for each in received)
        self._events: dict[str, asyncio.Event] = {}
        self._failures: dict[str, _Failure] = {}
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, device: object) -> bool:
        return device in self._waiting

    def first(self) -> Received | None:
        """The upload that is next; None where none waits."""
        return next(iter(self._waiting.values()), None)

    def of(self, device: str) -> Received | None:
        """The upload of this device that waits."""
        return self._waiting.get(device)

    def add(self, received: Received) -> None:
        """Take an upload in, behind the others."""
        self._waiting[received.device] = received

    def judged(self, received: Received, failure: CallError | None = None) -> None:
        """Let an upload go. `failure`: why there is no answer to it, to be told to its board."""
        self._waiting.pop(received.device, None)
        before = self._failures.pop(received.device, None)
        if failure is not None:
            count = before.count + 1 if before is not None and before.received.round == received.round else 1
            self._failures[received.device] = _Failure(received, failure, count)
        if event := self._events.pop(received.device, None):
            event.set()

    def failure_of(self, device: str, round_id: int, digest: str) -> CallError | None:
        """Why an upload got no answer; None for any but the device's last."""
        failure = self._failures.get(device)
        return failure.error if failure is not None and is_same(failure.received, round_id, digest) else None

    def has_failed_often(self, device: str, round_id: int) -> bool:
        """Whether the device has sent so much for a round that cannot be read that no more is taken."""
        failure = self._failures.get(device)
        return failure is not None and failure.received.round == round_id and failure.count >= MAX_FAILURES

    def event_of(self, device: str) -> asyncio.Event:
        """The event that is set when the device's upload has been judged, or the server stops."""
        event = self._events.setdefault(device, asyncio.Event())
        if self._is_stopping:
            event.set()
        return event

    def start(self) -> None:
        """Somebody judges again."""
        self._is_stopping = False

    def stop(self) -> None:
        """Answer all who wait now, and later ones at once: a server that stops must not wait for them."""
        self._is_stopping = True
        for event in self._events.values():
            event.set()

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping


def is_same(received: Received, round_id: int, digest: str) -> bool:
    """Whether an upload is the one that waits. A board profiles once, whatever the bytes: a second pass over the same
    text is not bit-equal on every machine."""
    return received.round == round_id and (round_id == PROFILING or received.digest == digest)
