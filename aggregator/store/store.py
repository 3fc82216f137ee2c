"""The store of the server's rows, in SQLite. Every method is one transaction.

Rows name blobs by digest; whoever writes a row has written its blob before. Methods block: the running server calls
writes in a thread, one at a time. Several processes may use one database (the commands beside a running server).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, case, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from aggregator.store.answer_rows import answer_of, columns_of, columns_of_profile, profile_of_row, same_answer
from aggregator.store.devices import DeviceRecords, count_bytes, require_member
from aggregator.store.records import (
    OPEN_STATES,
    Answer,
    Counts,
    Round,
    RoundClosedError,
    StoredReport,
)
from aggregator.store.tables import FACTS, HISTORY, PROFILES, REPORTS, ROUNDS, UPDATES, VERSIONS
from wire.rounds import RoundState


class Store(DeviceRecords):
    """A server's memory across restarts: tokens and devices, as DeviceRecords has them, and the run.

    Raises StateError where the file is no database of ours, DiskError where it cannot be written.
    """

    def close(self) -> None:
        self._database.close()

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
            connection.execute(ROUNDS.insert().values(round=round_id, version=version, **opened))

    def extend_round(self, round_id: int, reason: str) -> None:
        """Note that an open round goes on past its deadline. Raises RoundClosedError if it is over."""
        with self._writing() as connection:
            _leave_open(connection, round_id, {"state": RoundState.EXTENDED.value, "reason": reason})

    def merge_round(
        self, round_id: int, reason: str, version: int, digest: str, traffic: Mapping[str, tuple[int, int]]
    ) -> None:
        """End a round and publish the version it made, in one transaction. Raises RoundClosedError if it is over."""
        now = self.wall_clock()
        with self._writing() as connection:
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
            _leave_open(connection, round_id, ended)

    def forget_versions(self, below: int) -> None:
        """Drop the rows of old versions; their blobs are orphans from then on."""
        with self._writing() as connection:
            connection.execute(delete(VERSIONS).where(VERSIONS.c.version < below))

    # --- what boards sent ---

    def add_update(self, answer: Answer) -> Answer:
        """Store a board's answer that counts in an open round; return it, or the stored one if the same digest came
        before for the round that it was trained for.

        Raises ConflictError for another digest, ShutOutError for a device that was revoked or removed meanwhile,
        RoundClosedError where the round to count in is not open. An answer that is stored already is returned even
        after its round has closed: the board may not have heard.
        """
        with self._writing() as connection:
            same = (UPDATES.c.round == answer.round) & (UPDATES.c.device == answer.device)
            row = connection.execute(select(UPDATES).where(same)).mappings().one_or_none()
            if row is not None:
                return same_answer(answer_of(row), answer)
            require_member(connection, answer.device)
            if connection.execute(select(ROUNDS.c.round).where(_is_open(answer.counted_in))).one_or_none() is None:
                raise RoundClosedError(f"round {answer.counted_in} is not open")
            connection.execute(UPDATES.insert().values(**columns_of(answer), received_at=self.wall_clock()))
            return answer

    def update_of(self, round_id: int, device: str) -> Answer | None:
        with self._reading() as connection:
            same = (UPDATES.c.round == round_id) & (UPDATES.c.device == device)
            row = connection.execute(select(UPDATES).where(same)).mappings().one_or_none()
        return None if row is None else answer_of(row)

    def updates(self, round_id: int | None = None) -> tuple[Answer, ...]:
        """Answers that counted in one round, or all, in the order in which they were stored."""
        query = select(UPDATES).order_by(UPDATES.c.id)
        with self._reading() as connection:
            rows = connection.execute(
                query if round_id is None else query.where(UPDATES.c.counted_in == round_id)
            ).mappings()
            return tuple(answer_of(row) for row in rows)

    def counts(self, by: Literal["counted_in", "device"]) -> dict[int | str, Counts]:
        """How many updates were accepted and refused, per round that they counted in or per device."""
        column = UPDATES.c[by]
        accepted = func.sum(case((UPDATES.c.accepted, 1), else_=0))
        stale = func.sum(case((UPDATES.c.accepted & (UPDATES.c.staleness > 0), 1), else_=0))
        with self._reading() as connection:
            rows = connection.execute(select(column, accepted, func.count(), stale).group_by(column))
            return {key: Counts(yes, total - yes, old) for key, yes, total, old in rows}

    def refusals(self) -> dict[str, str]:
        """Why the last answer of each device that was refused, profile or update, was refused."""
        reasons: dict[str, str] = {}
        with self._reading() as connection:
            for table in (PROFILES, UPDATES):
                query = select(table.c.device, table.c.reason).where(~table.c.accepted).order_by(table.c.id)
                reasons.update((device, reason) for device, reason in connection.execute(query))
        return reasons

    def add_profile(self, answer: Answer) -> Answer:
        """Store a board's profile; return it, or the one stored before: a board profiles once. Raises ShutOutError."""
        with self._writing() as connection:
            same = PROFILES.c.device == answer.device
            row = connection.execute(select(PROFILES).where(same)).mappings().one_or_none()
            if row is not None:
                return profile_of_row(row)
            require_member(connection, answer.device)
            connection.execute(PROFILES.insert().values(**columns_of_profile(answer), received_at=self.wall_clock()))
            return answer

    def profile_of(self, device: str) -> Answer | None:
        with self._reading() as connection:
            row = connection.execute(select(PROFILES).where(PROFILES.c.device == device)).mappings().one_or_none()
        return None if row is None else profile_of_row(row)

    def profiles(self) -> tuple[Answer, ...]:
        """All profiles, in the order in which they were stored."""
        with self._reading() as connection:
            rows = connection.execute(select(PROFILES).order_by(PROFILES.c.id)).mappings()
            return tuple(map(profile_of_row, rows))

    def put_report(self, report: StoredReport) -> float:
        """Store a report in place of the device's last one of the same kind and version; return when, in seconds since
        1970."""
        now = self.wall_clock()
        fresh = {
            "round": report.round,
            "text": report.text,
            "values": json.dumps(dict(report.values)),
            "received_at": now,
        }
        key = {"device": report.device, "kind": report.kind, "version": report.version}
        with self._writing() as connection:
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

    def live_digests(self) -> frozenset[str]:
        """Digests of all blobs that are still needed: versions, what counts in open rounds, and profiles before
        version 1."""
        with self._reading() as connection:
            digests = set(connection.execute(select(VERSIONS.c.digest)).scalars())
            joined = select(UPDATES.c.digest).join(ROUNDS, UPDATES.c.counted_in == ROUNDS.c.round)
            needed = ROUNDS.c.state.in_(OPEN_STATES) & UPDATES.c.accepted
            digests |= set(connection.execute(joined.where(needed)).scalars())
            if connection.execute(select(func.count()).select_from(VERSIONS)).scalar_one() == 0:
                accepted = select(PROFILES.c.digest).where(PROFILES.c.accepted)
                digests |= set(connection.execute(accepted).scalars())
        return frozenset(digests)


def _is_open(round_id: int) -> ColumnElement[bool]:
    return (ROUNDS.c.round == round_id) & ROUNDS.c.state.in_(OPEN_STATES)


def _not_before(now: float) -> ColumnElement[float]:
    """The time at which a round closes: never before it opened, also where the clock was put back meanwhile."""
    return func.max(ROUNDS.c.opened_at, now)


def _add_version(connection: Connection, version: int, digest: str, now: float) -> None:
    """Store a version. Where the server has gone back to an older one, its history goes on from there."""
    connection.execute(VERSIONS.insert().values(version=version, digest=digest, made_at=now))
    connection.execute(delete(HISTORY).where(HISTORY.c.version >= version))
    connection.execute(HISTORY.insert().values(version=version, digest=digest))


def _leave_open(connection: Connection, round_id: int, values: Mapping[str, Any]) -> None:
    """Change an open round's row. Raises RoundClosedError if there is none."""
    if connection.execute(update(ROUNDS).where(_is_open(round_id)).values(**values)).rowcount != 1:
        raise RoundClosedError(f"round {round_id} is not open")
