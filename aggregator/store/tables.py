"""The tables of a server's database, and how an older database becomes a newer one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

from aggregator.errors import StateError

SCHEMA = MetaData()

FACTS = Table("facts", SCHEMA, Column("key", String, primary_key=True), Column("value", String, nullable=False))
"""Single values: run id, and the settings that bind the run."""

TOKENS = Table(
    "tokens",
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("hash", String, nullable=False, unique=True),
    Column("label", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked", Boolean, nullable=False),
    Column("uses", Integer, nullable=False, server_default=text("0")),
    Column("expires_at", Float, nullable=False, server_default=text("0")),
)

TOKEN_USES = Table(
    "token_uses",
    SCHEMA,
    Column("token", Integer, ForeignKey("tokens.id"), primary_key=True),
    Column("device", String, ForeignKey("devices.device"), primary_key=True),
    Column("used_at", Float, nullable=False),
)
"""The devices that enrolled by a join token: a use each, which no later removal gives back."""

DEVICES = Table(
    "devices",
    SCHEMA,
    Column("device", String, primary_key=True),
    Column("install_id", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("credential", String, nullable=False, unique=True),
    Column("revoked", Boolean, nullable=False),
    Column("has_left", Boolean, nullable=False),
    Column("enrolled_at", Float, nullable=False),
    Column("bytes_up", Integer, nullable=False),
    Column("bytes_down", Integer, nullable=False),
    Column("removed", Boolean, nullable=False, server_default=text("0")),
    Column("next_credential", String, unique=True),
    Column("former_credential", String, index=True),
    Column("credential_at", Float, nullable=False, server_default=text("0")),
    Column("requests", Integer, nullable=False, server_default=text("0")),
)
"""A device that was removed keeps its row: its updates name it, and no other board is to have its id."""

ROUNDS = Table(
    "rounds",
    SCHEMA,
    Column("round", Integer, primary_key=True),
    Column("state", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("opened_at", Float, nullable=False),
    Column("closed_at", Float),
    Column("reason", String, nullable=False),
)
"""`state` (wire.rounds.RoundState) of this one row is the truth for "round n is over"."""


def _answer_columns() -> tuple[Column[Any], ...]:
    """The columns that updates and profiles share: what a board sent, and what became of it."""
    return (
        Column("device", String, ForeignKey("devices.device"), nullable=False),
        Column("digest", String, nullable=False),
        Column("size_bytes", Integer, nullable=False),
        Column("n_examples", Integer, nullable=False),
        Column("accepted", Boolean, nullable=False),
        Column("reason", String, nullable=False),
        Column("sizes", String, nullable=False, server_default=""),
        Column("received_at", Float, nullable=False),
    )


UPDATES = Table(
    "updates",
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("round", Integer, ForeignKey("rounds.round"), nullable=False),
    Column("counted_in", Integer, nullable=False),
    Column("staleness", Integer, nullable=False),
    *_answer_columns(),
    UniqueConstraint("round", "device"),
)
"""`round` is the one that the update was trained for, `counted_in` the one that was open when it came."""

PROFILES = Table(
    "profiles",
    SCHEMA,
    Column("id", Integer, primary_key=True),
    *_answer_columns(),
    UniqueConstraint("device"),
)

RECEIVED = Table(
    "received",
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("device", String, ForeignKey("devices.device"), nullable=False, unique=True),
    Column("round", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("received_at", Float, nullable=False),
)
"""Uploads that are on the disk and not judged yet, in the order in which they came. A device has one at most."""

LOSSES = Table(
    "losses",
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("what", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("found_at", Float, nullable=False),
)
"""Files that were found missing or damaged, and what had stood in them, for people."""

VERSIONS = Table(
    "versions",
    SCHEMA,
    Column("version", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("made_at", Float, nullable=False),
)

HISTORY = Table(
    "history",
    SCHEMA,
    Column("version", Integer, primary_key=True),
    Column("digest", String, nullable=False),
)
"""Every version that was published, also those whose blobs are gone: boards check that it only grows."""

REPORTS = Table(
    "reports",
    SCHEMA,
    Column("device", String, ForeignKey("devices.device"), primary_key=True),
    Column("kind", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("round", Integer, nullable=False),
    Column("text", String, nullable=False),
    Column("values", String, nullable=False),
    Column("received_at", Float, nullable=False),
)
"""The last report of each kind that is worth keeping, per device and version."""


def _add_column(connection: Connection, table: str, column: str, definition: str) -> None:
    """Add a column, unless the database was made just now and has it already."""
    if column not in {row.name for row in connection.execute(text(f"PRAGMA table_info({table})"))}:
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN {column} {definition}"))


def _add_has_left(connection: Connection) -> None:
    """Boards may leave since version 2."""
    _add_column(connection, "devices", "has_left", "BOOLEAN NOT NULL DEFAULT 0")


_ADDED: Mapping[str, Sequence[str]] = {
    "tokens": ("uses INTEGER NOT NULL DEFAULT 0", "expires_at FLOAT NOT NULL DEFAULT 0"),
    "devices": (
        "removed BOOLEAN NOT NULL DEFAULT 0",
        "next_credential VARCHAR",
        "former_credential VARCHAR",
        "credential_at FLOAT NOT NULL DEFAULT 0",
    ),
}


def _add_renewal(connection: Connection) -> None:
    """Tokens end, devices are removed and credentials renewed since version 3; versions have a history.

    Tokens of before, which had no end, are revoked; credentials of before are renewed soon.
    """
    for table, columns in _ADDED.items():
        for column in columns:
            _add_column(connection, table, *column.split(maxsplit=1))
    connection.execute(text("UPDATE tokens SET revoked = 1 WHERE uses = 0"))
    for index, column in (("UNIQUE INDEX", "next_credential"), ("INDEX", "former_credential")):
        name = f"ix_devices_{column}"  # as SQLAlchemy calls it
        connection.execute(text(f"CREATE {index} IF NOT EXISTS {name} ON devices ({column})"))
    SCHEMA.create_all(connection, [TOKEN_USES, HISTORY])
    connection.execute(text("INSERT OR IGNORE INTO history SELECT version, digest FROM versions"))


def _add_received(connection: Connection) -> None:
    """Uploads are stored before they are judged since version 4, and summed from their files when a round closes."""
    for table in (UPDATES, PROFILES):
        _add_column(connection, table.name, "sizes", "VARCHAR NOT NULL DEFAULT ''")
    for table in (RECEIVED, LOSSES):
        table.create(connection, checkfirst=True)


def _add_requests(connection: Connection) -> None:
    """Requests are counted since version 5."""
    _add_column(connection, DEVICES.name, "requests", "INTEGER NOT NULL DEFAULT 0")


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    SCHEMA.create_all,
    _add_has_left,
    _add_renewal,
    _add_received,
    _add_requests,
)
"""Step i leads from schema version i to i + 1. A step that has shipped is never edited."""


def migrate(connection: Connection) -> None:
    """Bring the database to the newest schema, inside the caller's transaction. Raises StateError if it is newer."""
    version = _version(connection)
    if version == len(MIGRATIONS):
        return  # nothing is written: a full disk keeps no server from starting
    for step in MIGRATIONS[version:]:
        step(connection)
    connection.execute(text(f"PRAGMA user_version = {len(MIGRATIONS)}"))  # part of the transaction in SQLite


def require_newest(connection: Connection) -> None:
    """Raise StateError unless the database has the newest schema."""
    if (version := _version(connection)) != len(MIGRATIONS):
        raise StateError(
            f"The database has schema version {version}, of an older program.",
            "`aggregator serve` brings it up to date.",
        )


def _version(connection: Connection) -> int:
    """The version of the database's schema. Raises StateError where it is newer than any that this program knows."""
    version = int(connection.execute(text("PRAGMA user_version")).scalar_one())
    if version > len(MIGRATIONS):
        raise StateError(
            f"The database has schema version {version}; this program knows up to {len(MIGRATIONS)}.",
            "Install the newer version of braid that wrote it.",
        )
    return version
