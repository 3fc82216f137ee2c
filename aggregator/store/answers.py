"""The rows of what boards sent: uploads that are not judged yet, the answers to those that are, and what was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from sqlalchemy import ColumnElement, Connection, Table, case, delete, func, select

from aggregator.store.answer_rows import answer_of, columns_of, columns_of_profile, profile_of_row, same_answer
from aggregator.store.database import Rows
from aggregator.store.devices import require_member
from aggregator.store.records import (
    OPEN_STATES,
    Answer,
    Arrival,
    Counts,
    Loss,
    Received,
    RoundClosedError,
    UnjudgedError,
    Upload,
)
from aggregator.store.tables import LOSSES, PROFILES, RECEIVED, REPORTS, ROUNDS, UPDATES, VERSIONS


class Answers(Rows):
    """The part of the store that is about uploads. Every method is one transaction."""

    # --- received, and not judged yet ---

    def add_received(self, uploads: Sequence[Upload]) -> tuple[Received, ...]:
        """Store that uploads are on the disk, whole; return them, or the same ones stored before. Raises UnjudgedError
        where another one of a device waits to be judged; none of them is stored then."""
        with self._writing() as connection:
            return tuple(_add_received(connection, upload, self.wall_clock()) for upload in uploads)

    def received(self) -> tuple[Received, ...]:
        """All uploads that wait to be judged, in the order in which they came."""
        with self._reading() as connection:
            rows = connection.execute(select(RECEIVED).order_by(RECEIVED.c.id)).mappings()
            return tuple(map(_received_of, rows))

    def drop_received(self, device: str) -> None:
        """Forget a device's upload that no answer can be given to."""
        with self._writing() as connection:
            connection.execute(delete(RECEIVED).where(RECEIVED.c.device == device))

    # --- answers ---

    def add_update(self, answer: Answer) -> Answer:
        """Store a board's answer that counts in an open round, in the place of its received upload; return it, or the
        stored one if the same digest came before for the round that it was trained for.

        Raises ConflictError for another digest, ShutOutError for a device that was revoked or removed meanwhile,
        RoundClosedError where the round to count in is not open. An answer that is stored already is returned even
        after its round has closed: the board may not have heard.
        """
        with self._writing() as connection:
            _judged(connection, answer)
            same = (UPDATES.c.round == answer.round) & (UPDATES.c.device == answer.device)
            row = connection.execute(select(UPDATES).where(same)).mappings().one_or_none()
            if row is not None:
                return same_answer(answer_of(row), answer)
            require_member(connection, answer.device)
            if connection.execute(select(ROUNDS.c.round).where(is_open(answer.counted_in))).one_or_none() is None:
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

    def arrivals(self) -> tuple[Arrival, ...]:
        """All profiles, then all updates, in the order in which they were stored, each with its time."""
        with self._reading() as connection:
            profiles = connection.execute(select(PROFILES).order_by(PROFILES.c.id)).mappings()
            found = [Arrival(profile_of_row(row), row["received_at"]) for row in profiles]
            updates = connection.execute(select(UPDATES).order_by(UPDATES.c.id)).mappings()
            return (*found, *(Arrival(answer_of(row), row["received_at"]) for row in updates))

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
        """Store a board's profile in the place of its received upload; return it, or the one stored before: a board
        profiles once. Raises ShutOutError."""
        with self._writing() as connection:
            _judged(connection, answer)
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

    # --- files ---

    def live_digests(self) -> frozenset[str]:
        """Digests of all blobs that are still needed: versions, uploads that are not judged yet, what counts in open
        rounds, and profiles before version 1."""
        with self._reading() as connection:
            digests = set(connection.execute(select(VERSIONS.c.digest)).scalars())
            digests |= set(connection.execute(select(RECEIVED.c.digest)).scalars())
            joined = select(UPDATES.c.digest).join(ROUNDS, UPDATES.c.counted_in == ROUNDS.c.round)
            needed = ROUNDS.c.state.in_(OPEN_STATES) & UPDATES.c.accepted
            digests |= set(connection.execute(joined.where(needed)).scalars())
            if connection.execute(select(func.count()).select_from(VERSIONS)).scalar_one() == 0:
                accepted = select(PROFILES.c.digest).where(PROFILES.c.accepted)
                digests |= set(connection.execute(accepted).scalars())
        return frozenset(digests)

    def lose_answer(self, answer: Answer, is_profile: bool, reason: str) -> None:
        """Forget that an upload was accepted: its file is lost, and the board is asked for another."""
        table: Table = PROFILES if is_profile else UPDATES
        same = (table.c.device == answer.device) & (table.c.digest == answer.digest)
        what = f"profile of {answer.device}" if is_profile else f"update of {answer.device} for round {answer.round}"
        with self._writing() as connection:
            connection.execute(delete(table).where(same))
            self._add_loss(connection, what, answer.digest, reason)

    def lose_version(self, version: int, reason: str) -> None:
        """Forget a version whose file is lost, and what boards have said about it: another one gets its number."""
        with self._writing() as connection:
            digest = connection.execute(select(VERSIONS.c.digest).where(VERSIONS.c.version == version)).scalar_one()
            connection.execute(delete(VERSIONS).where(VERSIONS.c.version == version))
            said = (REPORTS.c.version >= version) & (REPORTS.c.kind == "evaluation")
            connection.execute(delete(REPORTS).where(said))
            self._add_loss(connection, f"version {version}", digest, reason)

    def losses(self) -> tuple[Loss, ...]:
        """All that was ever found missing or damaged, the oldest first."""
        with self._reading() as connection:
            rows = connection.execute(select(LOSSES).order_by(LOSSES.c.id)).mappings()
            return tuple(Loss(row["what"], row["digest"], row["reason"], row["found_at"]) for row in rows)

    def _add_loss(self, connection: Connection, what: str, digest: str, reason: str) -> None:
        row = {"what": what, "digest": digest, "reason": reason, "found_at": self.wall_clock()}
        connection.execute(LOSSES.insert().values(**row))


def is_open(round_id: int) -> ColumnElement[bool]:
    """The condition that a round takes updates."""
    return (ROUNDS.c.round == round_id) & ROUNDS.c.state.in_(OPEN_STATES)


def _judged(connection: Connection, answer: Answer) -> None:
    """The received upload that this is the answer to waits no more."""
    same = (RECEIVED.c.device == answer.device) & (RECEIVED.c.digest == answer.digest)
    connection.execute(delete(RECEIVED).where(same))


def _add_received(connection: Connection, upload: Upload, now: float) -> Received:
    same = select(RECEIVED).where(RECEIVED.c.device == upload.device)
    row = connection.execute(same).mappings().one_or_none()
    if row is not None:
        before = _received_of(row)
        if (before.round, before.digest) != (upload.round, upload.digest):
            raise UnjudgedError(f"{upload.device} waits for the judgement on an upload for round {before.round}")
        return before
    insertion = RECEIVED.insert().values(**asdict(upload), received_at=now).returning(RECEIVED.c.id)
    return Received(id=int(connection.execute(insertion).scalar_one()), **asdict(upload))


def _received_of(row: object) -> Received:
    return Received(**{name: row[name] for name in Received.__slots__})  # type: ignore[index]  # a row of the table
