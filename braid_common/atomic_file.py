"""Files that are there whole or not at all, whenever the power goes.

Temp file beside the target → fsync → rename → fsync of the folder, so that after a power cut the name holds the old
content or the new one. A process that is killed in between leaves its temp file; the next start sweeps it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

_OTHERS = 0o077  # the rights of everybody but the owner

_PREFIX, _SUFFIX = ".braid-", ".part"


def write_atomically(path: Path, data: bytes | bytearray | memoryview | Iterable[bytes]) -> None:
    """Put `data` (bytes, or chunks of them) at `path`, replacing what is there. The file is readable by its owner only.

    Once this returns, the content survives a power cut. Raises OSError (disk full, no permission, no such folder) and
    whatever the chunks raise; the old file is then untouched and the temp file gone. If only the last step fails, the
    folder's fsync, the new content is there but may not survive a power cut: call again.
    """
    chunks = (data,) if isinstance(data, (bytes, bytearray, memoryview)) else data
    descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink()
        raise
    sync_folder(path.parent)


def open_private(path: str, flags: int) -> int:
    """An opener for `open`: a file that is made by it is readable by its owner only."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, for its owner only and for good: what lies in a folder is lost
    with the folder's own name. One that is there stays as it is. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_folder(made.parent)


def make_private_folder(folder: Path) -> None:
    """Make a folder of ours, whose name survives a power cut, and shut others out of it where it is there and open to
    them. Raises OSError."""
    make_folder(folder)
    if folder.stat().st_mode & _OTHERS:
        folder.chmod(0o700)


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable: a rename or a new file is lost without it. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_temporaries(folder: Path) -> int:
    """Remove what killed writers left in `folder` (not below it); the number removed.

    Call it at start, once no other process can be writing there. Raises OSError.
    """
    leftovers = [path for path in folder.glob(f"{_PREFIX}*{_SUFFIX}") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)
