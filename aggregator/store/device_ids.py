"""Ids made of names, so that logs and files say who is meant, and equal in every run of equal names.

Nobody is authenticated by an id: it may be guessed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container

MAX_SLUG_CHARS = 40
"""The part of an id that is made of the name."""


def slug(name: str, otherwise: str) -> str:
    """The name in lower-case letters, digits and single dashes; `otherwise` where nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG_CHARS].strip("-") or otherwise


def device_id(name: str, taken: Container[str]) -> str:
    """The id of a new board: "nano", and "nano-2" for the second of that name.

    A name that is not its own slug gets six digits of its hash as well ("pi-4-0c1d2e"), so that boards of different
    names have the same ids in whichever order they enrol.
    """
    base = slug(name, "board")
    if base != name:
        base = f"{base}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    if base not in taken:
        return base
    number = 2
    while f"{base}-{number}" in taken:
        number += 1
    return f"{base}-{number}"
