"""SQLite in WAL mode through SQLAlchemy Core: opening, transactions, and the driver's errors as ours."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import StaticPool

from aggregator.errors import DiskError, StateError
from aggregator.store.kept_log import kept_log
from aggregator.store.tables import migrate, require_newest

BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for another process's transaction; ours last milliseconds."""

DAMAGED_HINT = (
    "`aggregator check DIR` says what else is damaged; put the folder's backup back, or start a new run with "
    "`aggregator init`."
)
"""What to do about a database that is damaged."""

_READ_ONLY = "readonly database"
"""What SQLite says of writing on a connection that can only read; the error's number is there from Python 3.11 on."""

_DISK_HINT = "Check free space (`df -h`) and the folder's permissions."


class Database:
    """One database file of the newest schema, or one in memory for None.

    `is_read_only`: nothing is written, and an older schema stays what it is.

    Raises StateError where the file is no database of ours, DiskError where it cannot be written.
    """

    def __init__(self, path: Path | None, *, is_read_only: bool = False) -> None:
        self._path = path
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}}
        if path is None:
            options["poolclass"] = StaticPool
        self._engine = create_engine(_url(path, is_read_only), **options)
        if not is_read_only:
            event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        if path is None or is_read_only:
            return self._open(is_read_only)
        try:
            _make_private(path)
            with kept_log(path):
                self._open(is_read_only)
        except OSError as error:
            raise DiskError(f"The database cannot be used: {error}", _DISK_HINT) from error

    def _open(self, is_read_only: bool) -> None:
        try:
            if is_read_only:
                with self.reading() as connection:
                    require_newest(connection)
                return
            with self.writing() as connection:
                migrate(connection)
        except (StateError, DiskError):
            self._engine.dispose()
            raise

    def close(self) -> None:
        self._engine.dispose()

    def damage(self, *, is_thorough: bool = False) -> list[str]:
        """The damage that SQLite finds in the file, the first few things; reads all of it. `is_thorough`: indexes are
        compared with their tables as well, which takes twice as long.

        A million updates, 344 MiB, take 0.4 s of processor time.
        """
        with self.reading() as connection:
            rows = connection.exec_driver_sql(f"PRAGMA {'integrity_check' if is_thorough else 'quick_check'}(5)")
            return [line for (found,) in rows if found != "ok" for line in found.splitlines()]

    def size_bytes(self) -> int:
        """Bytes of the file, without its log."""
        with self.reading() as connection:
            n_pages, page_bytes = (
                int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in ("page_count", "page_size")
            )
            return n_pages * page_bytes

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._mapped(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that takes the write lock at once, so that what it reads stays true until it commits."""
        with self._mapped(), self._engine.connect() as connection:
            connection.execution_options(braid_write=True)
            try:
                with connection.begin():
                    yield connection
            except OperationalError as error:
                if self._path is not None and _READ_ONLY in str(error.orig):
                    _give_up(connection, self._path)
                raise

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except OperationalError as error:
            raise DiskError(f"The database cannot be used: {error.orig}", _DISK_HINT) from error
        except IntegrityError:
            raise
        except DatabaseError as error:
            if self._path is not None and is_whole(self._path):  # SQLite says the same of a page that cannot be read
                raise DiskError("The database could not be read, and is not damaged", _DISK_HINT) from error
            raise StateError(f"The database is damaged: {error.orig}", DAMAGED_HINT) from error


class Rows:
    """The base of every group of rows: the database that they are in, and the clock that dates them.

    Args:
        path: the database file, or None for one in memory (tests).
        wall_clock: seconds since 1970: for people to read, and for what ends by the calendar, which is join tokens and
            the time between two renewals of a credential.
    """

    def __init__(
        self, path: Path | None, wall_clock: Callable[[], float] = time.time, *, is_read_only: bool = False
    ) -> None:
        self.wall_clock = wall_clock
        self._database = Database(path, is_read_only=is_read_only)
        self._reading, self._writing = self._database.reading, self._database.writing


def _url(path: Path | None, is_read_only: bool) -> str:
    if path is None:
        return "sqlite://"
    if not is_read_only:
        return f"sqlite:///{path}"
    has_log = path.with_name(path.name + "-wal").exists()
    # Beside a log SQLite needs a file for its locks; a folder that nobody can write to is one that does not change.
    is_frozen = not has_log and not os.access(path.parent, os.W_OK)
    return f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true" + ("&immutable=1" if is_frozen else "")


def _make_private(path: Path) -> None:
    """Make the file, if it is not there, one that its owner alone may read; SQLite gives its own beside it as much."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _prepare(connection: Any, _record: object) -> None:
    """Settings of every new connection. Transactions are ours, not the driver's."""
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _give_up(connection: Connection, path: Path) -> None:
    """Have a connection opened anew for the next transaction: one that was opened while the file system was read-only
    stays so for ever. While that still is, it is left alone: SQLite may lose the log where it is closed then."""
    with suppress(OSError), kept_log(path):
        connection.invalidate()


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("braid_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def is_whole(path: Path) -> bool:
    """Whether a database that SQLite took for damaged is not, and its disk could not be read for a moment.

    Through SQLite alone: closing the file ourselves would give up the locks that this process has on it.
    """
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            return bool(connection.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False
