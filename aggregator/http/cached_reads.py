"""Reads of a file that never wait for its disk: of what the system holds in memory, and nothing else."""

from __future__ import annotations

import os
from io import FileIO

_WITHOUT_WAITING: int | None = getattr(os, "RWF_NOWAIT", None)
"""Linux's flag; None where the system has no such thing."""


def read_cached(file: FileIO, offset: int, size_bytes: int) -> bytes:
    """Up to `size_bytes` from an offset on, as far as they are in memory; b"" where they have to be asked of the disk,
    or where the file system cannot tell (tmpfs)."""
    if _WITHOUT_WAITING is None:
        return b""
    block = bytearray(size_bytes)
    try:
        found = os.preadv(file.fileno(), [block], offset, _WITHOUT_WAITING)
    except OSError:
        return b""
    return bytes(block[:found])
