"""Rows of the store as frozen values, and the errors by which it refuses a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from wire.rounds import RoundState

OPEN_STATES = (RoundState.OPEN.value, RoundState.EXTENDED.value)
"""The `Round.state` of a round that takes updates."""


@dataclass(frozen=True, slots=True)
class Device:
    """An enrolled board, with the hashes of its credentials; one that has left has none that could be sent.

    Attributes:
        credential: the one it has used last.
        next_credential: the one that it has drawn and not used yet; None where it has not.
        former_credential: the one before, which is not valid any more; None where there was none.
        credential_at: when `credential` was first heard of, seconds since 1970.
        removed: taken out of the fleet; its updates count all the same.
    """

    device: str
    install_id: str
    name: str
    credential: str
    revoked: bool
    has_left: bool
    enrolled_at: float
    bytes_up: int
    bytes_down: int
    removed: bool = False
    next_credential: str | None = None
    former_credential: str | None = None
    credential_at: float = 0.0
    requests: int = 0


class Traffic(NamedTuple):
    """A board's traffic so far: bytes of bodies that it has sent and was sent, and its requests."""

    bytes_up: int = 0
    bytes_down: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Revocation:
    """A device was revoked, and with it the join tokens of these numbers, which it knows and which had uses left."""

    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """A round as stored. `state` is a wire.rounds.RoundState's value, `version` the one that boards train on."""

    round: int
    state: str
    version: int
    opened_at: float
    closed_at: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A board's upload for a round, or its profile (round 0), and what became of it.

    `counted_in`: the round that was open when it came, into whose sums it went if it was accepted; `round` itself
    unless it came late. `staleness`: versions that had been published since the one that it was trained on. `sizes`:
    those of its values, by which the next ones are judged (`run.screen`), as JSON.
    """

    round: int
    counted_in: int
    device: str
    digest: str
    size_bytes: int
    n_examples: int
    accepted: bool
    reason: str = ""
    staleness: int = 0
    sizes: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An answer, and when it was stored, seconds since 1970."""

    answer: Answer
    received_at: float


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload: whose, of which round, and its bytes' digest and number."""

    device: str
    round: int
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Received:
    """An upload that is on the disk, whole, and not judged yet. `id` says in which order they came."""

    id: int
    device: str
    round: int
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Loss:
    """A file that was found missing or damaged. `what` it held, `reason`: what was found; `found_at`: seconds since
    1970."""

    what: str
    digest: str
    reason: str
    found_at: float


class Counts(NamedTuple):
    """Updates accepted, refused, and how many of the accepted ones were trained on an older version."""

    accepted: int = 0
    refused: int = 0
    stale: int = 0


@dataclass(frozen=True, slots=True)
class StoredReport:
    """The last report of one kind that a device made about one version. `received_at`: seconds since 1970, set by the
    store."""

    device: str
    kind: str
    version: int
    round: int
    text: str
    values: Mapping[str, float]
    received_at: float = 0.0


class ConflictError(Exception):
    """The device has answered this round already, with other bytes. `stored` is what it sent first."""

    def __init__(self, stored: Answer) -> None:
        super().__init__(f"{stored.device} has already sent another answer for round {stored.round}")
        self.stored = stored


class UnjudgedError(Exception):
    """The device has sent something else that is not judged yet."""


class FleetFullError(Exception):
    """No more devices may enrol: whoever has a join token must not fill disk and memory with names."""


class ShutOutError(Exception):
    """A device is not, or no more, one of this run. `device`: its id; `revoked` False where it was removed."""

    def __init__(self, device: str, *, revoked: bool = True) -> None:
        super().__init__(f"device {device} was {'revoked' if revoked else 'removed'}")
        self.device, self.revoked = device, revoked


class RenewalError(Exception):
    """A device's next credential is not taken: none is due, or it is somebody's already."""


class RoundClosedError(Exception):
    """The round is not open."""
