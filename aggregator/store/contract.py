"""The contract of a run's records: what the run asks of whatever keeps its rows. `store.store.Store` satisfies it.

Each method is one transaction, and blocks. What it wrote is there after a power cut once it has returned. Rows name
blobs by digest; whoever writes a row has written its blob before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from aggregator.store.records import Answer, Counts, Device, Loss, Received, Round, StoredReport, Traffic, Upload


class RunRecords(Protocol):
    """Devices, rounds, versions, answers and reports of one run."""

    # --- the run ---

    def fact(self, key: str) -> str | None:
        """A single value of the run; None where there is none of that name."""

    def settle(self, key: str, value: str) -> str:
        """Store a single value unless it is there; what is there now."""

    # --- devices ---

    def enrol(self, install_id: str, name: str, credential: str, token: str | None = None) -> Device:
        """Store a device, or give the one of the same `install_id` its fresh credential hash and name. `token`: the
        hash of the join token by which it comes, None where the caller has let it in. Raises TokenRefusedError,
        ShutOutError, FleetFullError."""

    def devices(self) -> tuple[Device, ...]:
        """The devices of the fleet, without those that were removed."""

    def offer_credential(self, device: str, credential: str) -> None:
        """Store the hash of a device's next credential. Raises RenewalError where none is due."""

    def take_credential(self, device: str, credential: str) -> Device:
        """End a device's credential, now that its next one, of this hash, was used."""

    def leave_device(self, device: str) -> None:
        """End a device's credential until its `install_id` enrols again."""

    def count_bytes(self, traffic: Mapping[str, Traffic]) -> None:
        """Store each device's traffic so far."""

    # --- rounds and versions ---

    def rounds(self) -> tuple[Round, ...]: ...

    def versions(self) -> dict[int, str]:
        """The digest of each version's blob."""

    def add_version(self, version: int, digest: str) -> None:
        """Store the first version, which no round made."""

    def open_round(self, round_id: int, version: int) -> None: ...

    def extend_round(self, round_id: int, reason: str) -> None:
        """Note that an open round goes on past its deadline. Raises RoundClosedError if it is over."""

    def merge_round(
        self, round_id: int, reason: str, version: int, digest: str, traffic: Mapping[str, Traffic]
    ) -> None:
        """End a round and publish the version it made, in one transaction. Raises RoundClosedError if it is over."""

    def abandon_round(self, round_id: int, reason: str) -> None:
        """End a round without a new version. Raises RoundClosedError if it is over."""

    def history(self, after: int = 0, most: int | None = None) -> tuple[tuple[int, str], ...]:
        """Versions above `after` and the digests of their blobs, oldest first, at most so many; none is dropped."""

    def forget_versions(self, below: int) -> None:
        """Drop the rows of old versions."""

    def live_digests(self) -> frozenset[str]:
        """Digests of all blobs that are still needed."""

    def lose_version(self, version: int, reason: str) -> None:
        """Forget a version whose file is lost, and what boards have said about it."""

    # --- what boards sent ---

    def add_received(self, uploads: Sequence[Upload]) -> tuple[Received, ...]:
        """Store that uploads are on the disk, whole. Raises UnjudgedError where another one of a device waits."""

    def received(self) -> tuple[Received, ...]:
        """All uploads that wait to be judged, in the order in which they came."""

    def drop_received(self, device: str) -> None:
        """Forget a device's upload that no answer can be given to."""

    def add_update(self, answer: Answer) -> Answer:
        """Store a board's answer that counts in an open round, in the place of its received upload; return it, or the
        stored one if the same digest came before. Raises ConflictError for another digest, ShutOutError for a device
        that was revoked or removed meanwhile, RoundClosedError where the round to count in is not open."""

    def update_of(self, round_id: int, device: str) -> Answer | None: ...

    def updates(self, round_id: int | None = None) -> tuple[Answer, ...]:
        """Answers that counted in one round, or all, in the order in which they were stored."""

    def add_profile(self, answer: Answer) -> Answer:
        """Store a board's profile in the place of its received upload; return it, or the one stored before: a board
        profiles once. Raises ShutOutError."""

    def profile_of(self, device: str) -> Answer | None: ...

    def profiles(self) -> tuple[Answer, ...]:
        """All profiles, in the order in which they were stored."""

    def lose_answer(self, answer: Answer, is_profile: bool, reason: str) -> None:
        """Forget that an upload was accepted: its file is lost."""

    def losses(self) -> tuple[Loss, ...]:
        """All that was ever found missing or damaged, the oldest first."""

    def counts(self, by: Literal["counted_in", "device"]) -> dict[int | str, Counts]:
        """How many updates were accepted and refused, per round that they counted in or per device."""

    def refusals(self) -> dict[str, str]:
        """Why the last answer of each device that was refused, was refused."""

    def put_reports(self, reports: Sequence[StoredReport]) -> float:
        """Store reports, each in place of the device's last one of the same kind and version; return when, in seconds
        since 1970."""

    def forget_reports(self, device: str, kind: str) -> None:
        """Drop a device's reports of one kind."""

    def reports(self) -> tuple[StoredReport, ...]:
        """All reports, by version."""
