"""Everything in a server's folder, looked at in order; beside a running server or a stopped one, without a trace."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from aggregator.checkup.files import permissions, space, stored_files
from aggregator.checkup.finding import Finding, damaged
from aggregator.checkup.records import bound_settings, database, join_tokens, losses, rounds
from aggregator.checkup.settings import base, run_settings
from aggregator.errors import DiskError, StateError
from aggregator.store.folder import Folder
from aggregator.store.store import Store


def examine(folder: Folder) -> Iterator[Finding]:
    """Look the folder through; each finding as soon as it is known. Raises StateError where it is none of ours,
    DiskError where it cannot be read."""
    folder.need()
    yield Finding("server", "ok", "runs" if is_served(folder) else "does not run")
    config, found = run_settings(folder)
    yield found
    if config is not None:
        yield base(config)
    yield permissions(folder)
    if not folder.database.exists():
        yield Finding("database", "ok", "is made at the first start")
        return
    try:
        store = Store(folder.database, is_read_only=True)
    except StateError as error:
        yield damaged("database", error.message, error.hint)
        return
    try:
        yield from database(store)
        if config is not None:
            yield bound_settings(config, store)
            yield space(folder, config, store)
        yield join_tokens(folder, store)
        yield rounds(store)
        yield from stored_files(folder, store)
        yield from losses(folder, store)
    except StateError as error:
        yield damaged("database", error.message, error.hint)
    except OSError as error:
        raise DiskError(f"{folder.root} cannot be read: {error}", "Run this as the user of the server.") from error
    finally:
        store.close()


def is_served(folder: Folder) -> bool:
    """Whether a server that runs on this machine has left its address here."""
    try:
        pid = int(json.loads(folder.address.read_text(encoding="utf-8"))["pid"])
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True
