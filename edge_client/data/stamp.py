"""The stamp of a board's data files: what changes when somebody replaces, cuts or removes one of them.

Stamps are compared for equality, never for order, so that no clock matters.
"""

from __future__ import annotations

from pathlib import Path

from edge_client.jobs.data_spec import BUILTIN, DataSpec

Stamp = tuple[tuple[str, int, int, int, int, int], ...]
"""(path, device, inode, bytes, time of the content in ns, time of the entry in ns) of every file; the path and zeros of
one that is missing or cannot be looked at."""


def stamp_of(data: DataSpec) -> Stamp:
    """The stamp of a file, or of all that lies in a folder. Raises nothing: whoever reads the files says what is wrong
    with them."""
    if data.path.startswith(BUILTIN):
        return ()
    path = Path(data.path).expanduser()
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
    except OSError:
        files = [path]
    return tuple(map(_stamp, files))


def _stamp(path: Path) -> tuple[str, int, int, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0, 0, 0
    return str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
