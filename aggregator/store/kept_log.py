"""A database's write-ahead log, kept while the database is opened.

SQLite (3.40 at least) removes the log where opening fails in one way: its shared-memory file cannot be cut to length,
and then not be opened for writing when the connection is closed again. It takes the log for empty then, and with it
goes all that is in it alone: everything since the last server that ended in order. A second name outlives that.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems that have none, such as FAT


@contextmanager
def kept_log(database: Path) -> Iterator[None]:
    """While the database is opened, its log has a second name; one that an opening which failed has left takes the
    log's place, where the log has gone. Raises OSError.

    The log is taken back as it was. Where it had been copied into the database in full, reading it again changes
    nothing: nobody has written since.
    """
    log, kept = (database.with_name(f"{database.name}{ending}") for ending in ("-wal", "-wal.kept"))
    if kept.exists():
        if log.exists():
            kept.unlink(missing_ok=True)
        else:
            kept.replace(log)
    with contextlib.suppress(
        FileNotFoundError, FileExistsError
    ):  # no log; or a command beside the server does the same
        try:
            os.link(log, kept)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    yield
    kept.unlink(missing_ok=True)
