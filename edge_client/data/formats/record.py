"""Records: what the readers of every format give, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """A row, line or element of a file.

    Attributes:
        place: file and line, for people.
        value: a mapping of columns to values; anything else can be no example.
    """

    place: str
    value: object


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of a file that cannot be used.

    Attributes:
        place: file and line, for people.
        why: what is wrong with it, in words that follow the place.
        n: lines or records that are lost.
    """

    place: str
    why: str
    n: int = 1


Item = Record | Skipped

IsRecord = Callable[[Mapping[str, object]], bool]
"""Whether an object or a row with these columns is itself something that can be used."""
