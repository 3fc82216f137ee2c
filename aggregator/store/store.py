"""The store of the server's rows, in SQLite. Every method is one transaction.

What opens or ends a round, or adds a version, can be called again with the same words after a DiskError: SQLite may
report a commit as failed that the file has all the same.

Rows name blobs by digest; whoever writes a row has written its blob before. Methods block: the running server calls
writes in a thread, one at a time. Several processes may use one database (the commands beside a running server).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from aggregator.errors import StateError
from aggregator.store.answers import Answers, is_open
from aggregator.store.database import DAMAGED_HINT
from aggregator.store.devices import DeviceRecords, count_bytes
from aggregator.store.records import Round, RoundClosedError, StoredReport, Traffic
from aggregator.store.tables import FACTS, HISTORY, REPORTS, ROUNDS, VERSIONS
from wire.rounds import RoundState


class Store(DeviceRecords, Answers):
    """A server's memory across restarts: tokens and devices, as DeviceRecords has them, what boards sent, as Answers
    has it, and the run.

    Args:
        path: the database file, or None for one in memory (tests).
        wall_clock: seconds since 1970: for people to read, and for what ends by the calendar.

    Raises StateError where the file is no database of ours, DiskError where it cannot be written.
    """

    def close(self) -> None:
        self._database.close()

    def require_sound(self) -> None:
        """Raise StateError where SQLite finds the file damaged."""
        if found := self._database.damage():
            raise StateError(f"The database is damaged: {found[0]}", DAMAGED_HINT)

    def size_bytes(self) -> int:
        """Bytes of the database file, without its log."""
        return self._database.size_bytes()

    def damage(self) -> list[str]:
        """The damage that SQLite finds in the file, the first few things. Takes as long as reading all of it twice."""
        return self._database.damage(is_thorough=True)

    # --- the run ---

    def fact(self, key: str) -> str | None:
        with self._reading() as connection:
            value = connection.execute(select(FACTS.c.value).where(FACTS.c.key == key)).scalar_one_or_none()
        return None if value is None else str(value)

    def settle(self, key: str, value: str) -> str:
        """Store a fact unless it is there; return what is there now."""
        with self._writing() as connection:
            connection.execute(insert(FACTS).values(key=key, value=value).on_conflict_do_nothing())
            return str(connection.execute(select(FACTS.c.value).where(FACTS.c.key == key)).scalar_one())

    def replace_fact(self, key: str, value: str) -> None:
        with self._writing() as connection:
            row = insert(FACTS).values(key=key, value=value)
            connection.execute(row.on_conflict_do_update(index_elements=["key"], set_={"value": value}))

    # --- rounds and versions ---

    def rounds(self) -> tuple[Round, ...]:
        with self._reading() as connection:
            return tuple(Round(**row) for row in connection.execute(select(ROUNDS).order_by(ROUNDS.c.round)).mappings())

    def versions(self) -> dict[int, str]:
        """Version → digest of its blob."""
        with self._reading() as connection:
            rows = connection.execute(select(VERSIONS.c.version, VERSIONS.c.digest).order_by(VERSIONS.c.version))
            return {row.version: row.digest for row in rows}

    def add_version(self, version: int, digest: str) -> None:
        """Store the first version, which no round made."""
        with self._writing() as connection:
            if not _has_version(connection, version, digest):
                _add_version(connection, version, digest, self.wall_clock())

    def history(self, after: int = 0, most: int | None = None) -> tuple[tuple[int, str], ...]:
        """Versions above `after` and the digests of their blobs, oldest first, at most so many; no version is ever
        dropped from it."""
        with self._reading() as connection:
            rows = select(HISTORY).where(HISTORY.c.version > after).order_by(HISTORY.c.version).limit(most)
            return tuple((row.version, row.digest) for row in connection.execute(rows))

    def open_round(self, round_id: int, version: int) -> None:
        opened = {"state": RoundState.OPEN.value, "opened_at": self.wall_clock(), "reason": ""}
        with self._writing() as connection:
            if not _has_round(connection, round_id, RoundState.OPEN, version=version):
                connection.execute(ROUNDS.insert().values(round=round_id, version=version, **opened))

    def extend_round(self, round_id: int, reason: str) -> None:
        """Note that an open round goes on past its deadline. Raises RoundClosedError if it is over."""
        with self._writing() as connection:
            _leave_open(connection, round_id, {"state": RoundState.EXTENDED.value, "reason": reason})

    def merge_round(
        self, round_id: int, reason: str, version: int, digest: str, traffic: Mapping[str, Traffic]
    ) -> None:
        """End a round and publish the version it made, in one transaction. Raises RoundClosedError if it is over."""
        now = self.wall_clock()
        with self._writing() as connection:
            if _has_round(connection, round_id, RoundState.MERGED) and _has_version(connection, version, digest):
                return
            _leave_open(
                connection,
                round_id,
                {"state": RoundState.MERGED.value, "closed_at": _not_before(now), "reason": reason},
            )
            _add_version(connection, version, digest, now)
            count_bytes(connection, traffic)

    def abandon_round(self, round_id: int, reason: str) -> None:
        """End a round without a new version. Raises RoundClosedError if it is over."""
        ended = {"state": RoundState.ABANDONED.value, "closed_at": _not_before(self.wall_clock()), "reason": reason}
        with self._writing() as connection:
            if not _has_round(connection, round_id, RoundState.ABANDONED, reason=reason):
                _leave_open(connection, round_id, ended)

    def forget_versions(self, below: int) -> None:
        """Drop the rows of old versions; their blobs are orphans from then on."""
        with self._writing() as connection:
            connection.execute(delete(VERSIONS).where(VERSIONS.c.version < below))

    # --- what boards reported ---

    def put_reports(self, reports: Sequence[StoredReport]) -> float:
        """Store reports, each in place of the device's last one of the same kind and version; return when, in seconds
        since 1970."""
        now = self.wall_clock()
        with self._writing() as connection:
            for report in reports:
                fresh = {
                    "round": report.round,
                    "text": report.text,
                    "values": json.dumps(dict(report.values)),
                    "received_at": now,
                }
                key = {"device": report.device, "kind": report.kind, "version": report.version}
                row = insert(REPORTS).values(**key, **fresh)
                connection.execute(row.on_conflict_do_update(index_elements=list(key), set_=fresh))
        return now

    def forget_reports(self, device: str, kind: str) -> None:
        """Drop a device's reports of one kind."""
        with self._writing() as connection:
            connection.execute(delete(REPORTS).where((REPORTS.c.device == device) & (REPORTS.c.kind == kind)))

    def reports(self) -> tuple[StoredReport, ...]:
        """By version."""
        with self._reading() as connection:
            rows = connection.execute(select(REPORTS).order_by(REPORTS.c.version, REPORTS.c.received_at)).mappings()
            return tuple(
                StoredReport(
                    device=row["device"],
                    kind=row["kind"],
                    version=row["version"],
                    round=row["round"],
                    text=row["text"],
                    values=json.loads(row["values"]),
                    received_at=row["received_at"],
                )
                for row in rows
            )


def _not_before(now: float) -> ColumnElement[float]:
    """The time at which a round closes: never before it opened, also where the clock was put back meanwhile."""
    return func.max(ROUNDS.c.opened_at, now)


def _has_round(connection: Connection, round_id: int, state: RoundState, **others: Any) -> bool:
    """Whether a round's row says this already."""
    wanted = {"round": round_id, "state": state.value, **others}
    same = [ROUNDS.c[name] == value for name, value in wanted.items()]
    return connection.execute(select(ROUNDS.c.round).where(*same)).first() is not None


def _has_version(connection: Connection, version: int, digest: str) -> bool:
    """Whether the version is stored already, with this blob."""
    same = VERSIONS.c.version == version, VERSIONS.c.digest == digest
    return connection.execute(select(VERSIONS.c.version).where(*same)).first() is not None


def _add_version(connection: Connection, version: int, digest: str, now: float) -> None:
    """Store a version. Where the server has gone back to an older one, its history goes on from there."""
    connection.execute(VERSIONS.insert().values(version=version, digest=digest, made_at=now))
    connection.execute(delete(HISTORY).where(HISTORY.c.version >= version))
    connection.execute(HISTORY.insert().values(version=version, digest=digest))


def _leave_open(connection: Connection, round_id: int, values: Mapping[str, Any]) -> None:
    """Change an open round's row. Raises RoundClosedError if there is none."""
    if connection.execute(update(ROUNDS).where(is_open(round_id)).values(**values)).rowcount != 1:
        raise RoundClosedError(f"round {round_id} is not open")
