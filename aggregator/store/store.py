"""The store of the server's rows, in SQLite. Every method is one transaction.

Rows name blobs by digest; whoever writes a row has written its blob before. Methods block: the running server calls
writes in a thread, one at a time. Several processes may use one database (the commands beside a running server).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from aggregator.settings.keys import MAX_DEVICES
from aggregator.store.answers import Answers, is_open
from aggregator.store.database import Database
from aggregator.store.device_ids import device_id
from aggregator.store.records import Device, FleetFullError, Round, RoundClosedError, StoredReport, Token
from aggregator.store.tables import DEVICES, FACTS, REPORTS, ROUNDS, TOKENS, VERSIONS
from wire.rounds import RoundState


class Store(Answers):
    """A server's memory across restarts.

    Args:
        path: the database file, or None for one in memory (tests).
        wall_clock: seconds since 1970, for people to read; nothing is decided by it.

    Raises StateError where the file is no database of ours, DiskError where it cannot be written.
    """

    def __init__(self, path: Path | None, wall_clock: Callable[[], float] = time.time) -> None:
        super().__init__(Database(path), wall_clock)

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

    # --- join tokens ---

    def add_token(self, token_hash: str, label: str) -> int:
        """Store a join token's hash; return its number."""
        row = {"hash": token_hash, "label": label, "created_at": self._wall_clock(), "revoked": False}
        with self._writing() as connection:
            return int(connection.execute(TOKENS.insert().values(row).returning(TOKENS.c.id)).scalar_one())

    def tokens(self) -> tuple[Token, ...]:
        with self._reading() as connection:
            return tuple(Token(**row) for row in connection.execute(select(TOKENS).order_by(TOKENS.c.id)).mappings())

    def revoke_token(self, number: int) -> bool:
        """Whether there was such a token. Boards that have enrolled with it stay."""
        with self._writing() as connection:
            return connection.execute(update(TOKENS).where(TOKENS.c.id == number).values(revoked=True)).rowcount == 1

    # --- devices ---

    def enrol(self, install_id: str, name: str, credential: str) -> Device:
        """Store a device, or give the one of the same `install_id` its fresh credential hash and name.

        A new device gets an id made of its name, which it keeps. Raises FleetFullError beyond MAX_DEVICES.
        """
        same = DEVICES.c.install_id == install_id
        with self._writing() as connection:
            known = update(DEVICES).where(same).values(credential=credential, name=name, has_left=False)
            if connection.execute(known).rowcount == 0:
                taken = set(connection.execute(select(DEVICES.c.device)).scalars())
                if len(taken) >= MAX_DEVICES:
                    raise FleetFullError(f"{MAX_DEVICES} devices have enrolled")
                row = {
                    "device": device_id(name, taken),
                    "install_id": install_id,
                    "name": name,
                    "credential": credential,
                    "revoked": False,
                    "has_left": False,
                    "enrolled_at": self._wall_clock(),
                    "bytes_up": 0,
                    "bytes_down": 0,
                }
                connection.execute(DEVICES.insert().values(**row))
            return Device(**connection.execute(select(DEVICES).where(same)).mappings().one())

    def device(self, device: str) -> Device | None:
        return self._device_where(DEVICES.c.device == device)

    def device_of(self, credential: str) -> Device | None:
        """The device whose credential has this hash."""
        return self._device_where(DEVICES.c.credential == credential)

    def _device_where(self, condition: ColumnElement[bool]) -> Device | None:
        with self._reading() as connection:
            row = connection.execute(select(DEVICES).where(condition)).mappings().one_or_none()
        return None if row is None else Device(**row)

    def devices(self) -> tuple[Device, ...]:
        with self._reading() as connection:
            rows = connection.execute(select(DEVICES).order_by(DEVICES.c.enrolled_at, DEVICES.c.device)).mappings()
            return tuple(Device(**row) for row in rows)

    def revoke_device(self, device: str) -> bool:
        """Whether there was such a device."""
        with self._writing() as connection:
            change = update(DEVICES).where(DEVICES.c.device == device).values(revoked=True)
            return connection.execute(change).rowcount == 1

    def leave_device(self, device: str) -> None:
        """End a device's credential until its `install_id` enrols again."""
        gone = {"has_left": True, "credential": f"left {device}"}  # no hash: nothing that is sent can match it
        with self._writing() as connection:
            connection.execute(update(DEVICES).where(DEVICES.c.device == device).values(**gone))

    def count_bytes(self, traffic: Mapping[str, tuple[int, int]]) -> None:
        """Store each device's total bytes (up, down)."""
        with self._writing() as connection:
            _count_bytes(connection, traffic)

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
            connection.execute(VERSIONS.insert().values(version=version, digest=digest, made_at=self._wall_clock()))

    def open_round(self, round_id: int, version: int) -> None:
        opened = {"state": RoundState.OPEN.value, "opened_at": self._wall_clock(), "reason": ""}
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
        now = self._wall_clock()
        with self._writing() as connection:
            _leave_open(connection, round_id, {"state": RoundState.MERGED.value, "closed_at": now, "reason": reason})
            connection.execute(VERSIONS.insert().values(version=version, digest=digest, made_at=now))
            _count_bytes(connection, traffic)

    def abandon_round(self, round_id: int, reason: str) -> None:
        """End a round without a new version. Raises RoundClosedError if it is over."""
        ended = {"state": RoundState.ABANDONED.value, "closed_at": self._wall_clock(), "reason": reason}
        with self._writing() as connection:
            _leave_open(connection, round_id, ended)

    def forget_versions(self, below: int) -> None:
        """Drop the rows of old versions; their blobs are orphans from then on."""
        with self._writing() as connection:
            connection.execute(delete(VERSIONS).where(VERSIONS.c.version < below))

    # --- what boards reported ---

    def put_report(self, report: StoredReport) -> float:
        """Store a report in place of the device's last one of the same kind and version; return when, in seconds since
        1970."""
        now = self._wall_clock()
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


def _leave_open(connection: Connection, round_id: int, values: Mapping[str, Any]) -> None:
    """Change an open round's row. Raises RoundClosedError if there is none."""
    if connection.execute(update(ROUNDS).where(is_open(round_id)).values(**values)).rowcount != 1:
        raise RoundClosedError(f"round {round_id} is not open")


def _count_bytes(connection: Connection, traffic: Mapping[str, tuple[int, int]]) -> None:
    for device, (up, down) in traffic.items():
        change = update(DEVICES).where(DEVICES.c.device == device).values(bytes_up=up, bytes_down=down)
        connection.execute(change)
