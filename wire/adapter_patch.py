"""An adapter as its difference to one that the board holds: how the two answers are told apart.

Checked by `wire.checks.check_patch`, made by the server, undone by the board's worker.
"""

from __future__ import annotations

_FIRST_KEY = b"\xa5since"  # msgpack: a string of five bytes

START_BYTES = 1 + len(_FIRST_KEY)
"""What of a file says which of the two it is: the map's own byte, then its first key."""


def is_difference(start: bytes) -> bool:
    """Whether a file that begins like this is an AdapterPatch; else it is an Adapter, or nothing of ours.

    `encode` writes the fields of a message in their order: an AdapterPatch begins with `since`, an Adapter with
    `protocol`.
    """
    return start[1:START_BYTES] == _FIRST_KEY
