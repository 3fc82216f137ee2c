"""The verdict on a run: what the server's store has of what it acknowledged, beside a run without faults."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from chaos.ledger import Acknowledged


@dataclass(frozen=True, slots=True)
class Stored:
    """The contents of a server's folder after it has stopped.

    Attributes:
        updates: accepted ones, profiles as those of round 0, in the order in which they were taken in.
        waiting: those that are to be judged.
        versions: the SHA-256 of each version that was published.
        rounds: how many were merged.
        blob: the SHA-256 of the newest version's file, as it is now.
    """

    updates: tuple[Acknowledged, ...]
    waiting: tuple[Acknowledged, ...]
    versions: Mapping[int, str]
    rounds: int
    blob: str

    @property
    def order(self) -> dict[int, list[str]]:
        """The boards of each round, in the order in which their updates were taken in."""
        order: dict[int, list[str]] = {}
        for update in self.updates:
            order.setdefault(update.round, []).append(update.board)
        return order


def read_store(folder: Path) -> Stored:
    """Read what a stopped server has stored, with SQLite alone."""
    with closing(sqlite3.connect(folder / "braid.db")) as database:
        updates = [
            *database.execute("SELECT device, 0, digest FROM profiles WHERE accepted ORDER BY id"),
            *database.execute("SELECT device, round, digest FROM updates WHERE accepted ORDER BY id"),
        ]
        waiting = [*database.execute("SELECT device, round, digest FROM received ORDER BY id")]
        versions = dict(database.execute("SELECT version, digest FROM history"))
        (rounds,) = database.execute("SELECT count(*) FROM rounds WHERE state = 'merged'").fetchone()
    newest = versions[max(versions)] if versions else ""
    blob = hashlib.sha256((folder / "blobs" / newest).read_bytes()).hexdigest() if newest else ""
    accepted, received = (tuple(Acknowledged(*row) for row in rows) for rows in (updates, waiting))
    return Stored(accepted, received, versions, int(rounds), blob)


def lost(acknowledged: Iterable[Acknowledged], stored: Stored) -> list[Acknowledged]:
    """Updates that were acknowledged and neither count nor wait to be judged."""
    kept = {*stored.updates, *stored.waiting}
    return [update for update in acknowledged if update not in kept]


def twice(stored: Stored) -> list[Acknowledged]:
    """Updates that count more than once: of one board for one round, or the same bytes in two."""
    places = Counter((update.board, update.round) for update in stored.updates)
    contents = Counter(update.digest for update in stored.updates)
    return [
        update for update in stored.updates if places[update.board, update.round] > 1 or contents[update.digest] > 1
    ]


def first_difference(stored: Stored, faultless: Stored) -> int | None:
    """The first version that is another than in the run without faults; None where all are equal to the bit."""
    for version in sorted({*stored.versions, *faultless.versions}):
        if stored.versions.get(version) != faultless.versions.get(version):
            return version
    newest = max(stored.versions, default=0)
    return newest if stored.blob != faultless.blob or stored.blob != stored.versions.get(newest, "") else None
