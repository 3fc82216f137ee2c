"""Commits to the disk, in the order that survives a power cut: blob, then the row that names it.

Everything here blocks, and is called by one thread at a time, under the run's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aggregator.errors import CallError
from aggregator.settings.config import RunConfig
from aggregator.store.records import Answer, Received, Traffic, Upload
from aggregator.store.storage import Storage
from aggregator.store.uploads import Part

KEPT_VERSIONS = 3
"""Versions whose blobs stay: the current one, the one boards may still fetch, and one to look back to. A run that
counts late updates keeps all that these may have been trained on."""


@dataclass(slots=True)
class Arrival:
    """An upload whose bytes are all here, and durable. `refusal`: why it is not taken in all the same."""

    device: str
    round: int
    digest: str
    part: Part
    refusal: CallError | None = None


class Committer:
    """Writes uploads, versions and what was lost.

    Args:
        config: run.toml.
        storage: where everything is written.
    """

    def __init__(self, config: RunConfig, storage: Storage) -> None:
        self._config, self._storage = config, storage

    def receive(self, arrivals: Sequence[Arrival]) -> tuple[Received, ...]:
        """Keep whole uploads, one of a device at most, until they are judged; a power cut cannot take them from now on.

        Raises UnjudgedError where another one of a device waits. The uploads stay unfinished if an error is raised.
        """
        blobs = self._storage.blobs
        uploads = [Upload(each.device, each.round, each.digest, each.part.size) for each in arrivals]
        files = {each.digest: each.part.path for each in arrivals}
        new = {digest for digest in files if not blobs.path(digest).exists()}
        try:
            blobs.adopt(files)
            return self._storage.records.add_received(uploads)
        except BaseException:
            for digest in new:  # the others are of other boards as well
                if blobs.path(digest).exists():
                    blobs.path(digest).replace(files[digest])
            raise

    def publish_first(self, version: int, data: bytes) -> str:
        """Store the version that was made of profiles; its digest."""
        digest = self._storage.blobs.put(data)
        self._storage.records.add_version(version, digest)
        return digest

    def publish(self, round_id: int, reason: str, version: int, data: bytes, traffic: Mapping[str, Traffic]) -> str:
        """Store a version and close the round that made it, with the byte counts so far; its digest."""
        digest = self._storage.blobs.put(data)
        self._storage.records.merge_round(round_id, reason, version, digest, traffic)
        return digest

    def lose(self, answer: Answer, is_profile: bool, reason: str) -> None:
        """Forget that an upload was accepted, and put its file aside: it is missing or damaged."""
        self._storage.blobs.set_aside(answer.digest)
        self._storage.records.lose_answer(answer, is_profile, reason)

    def tidy(self, version: int, rounds: Iterable[int]) -> None:
        """Drop what no board can ask for any more, now that `version` is the newest and only uploads of `rounds` may
        still count."""
        oldest = version - max(KEPT_VERSIONS, self._config.rounds.staleness_limit + 1) + 1
        self._storage.records.forget_versions(oldest)
        self._storage.blobs.sweep(self._storage.records.live_digests())
        self._storage.cuts.forget(oldest)
        self._storage.uploads.sweep(frozenset(rounds))
