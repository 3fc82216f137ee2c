"""Patches of adapters: how a file that holds a patch is told from one that holds a whole adapter.

A patch is made by the server, checked by `wire.checks.check_patch`, and applied by the board's worker.
"""

from __future__ import annotations

_FIRST_KEY = b"\xa5since"  # msgpack: a string of five bytes

START_BYTES = 1 + len(_FIRST_KEY)
"""Bytes at a file's start that say which of the two it is: the map's own byte, then its first key."""


def is_patch(start: bytes) -> bool:
    """Whether a file that begins like this is an AdapterPatch; else it is an Adapter, or nothing of ours.

    `encode` writes the fields of a message in their order: an AdapterPatch begins with `since`, an Adapter with
    `protocol`.
    """
    return start[1:START_BYTES] == _FIRST_KEY
