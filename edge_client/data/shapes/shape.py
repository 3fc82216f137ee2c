"""Shapes of records: which columns they have, and what of them is read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TextPair:
    """A text to read, and the right answers to it, one at least; neither is empty."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record, or a part of one, that makes no example. `why`: in words that follow its place."""

    why: str


class NotTextError(Exception):
    """A value that cannot be written as text; the message says what it is instead."""


class Fields:
    """A record whose columns are found without regard to case.

    `get("answers.text")` goes into the object in a column, or in a list that holds no other, unless a column is called
    that.
    """

    def __init__(self, values: Mapping[str, object], names: Mapping[str, str] | None = None) -> None:
        self.values = values
        self._names = names_of(values) if names is None else names

    def __contains__(self, column: str) -> bool:
        return self.column(column) != ""

    def column(self, column: str) -> str:
        """The record's own spelling of a column, "" where it has none; of "a.b" it is that of "a"."""
        folded = fold(column)
        return self._names.get(folded) or self._names.get(folded.partition(".")[0], "")

    def get(self, column: str) -> object:
        """The value in a column; None where there is none."""
        folded = fold(column)
        if folded in self._names:
            return self.values[self._names[folded]]
        head, dot, rest = folded.partition(".")
        value = self.values.get(self._names[head]) if dot and head in self._names else None
        inner = inner_record(value)
        # Of several objects in a list none is taken for the others: they are no text, and the record says so.
        return (value if isinstance(value, list) else None) if inner is None else Fields(inner).get(rest)


def inner_record(value: object) -> dict[str, object] | None:
    """The object that a column holds, by itself or as the only element of a list; None where it holds none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None


@lru_cache(maxsize=4096)  # every record asks for the same few names
def fold(column: str) -> str:
    """A column's name without what people do not tell apart: case, white space around it."""
    return column.strip().lower()


def names_of(columns: Iterable[object]) -> dict[str, str]:
    """The columns' own spellings by their folded names. Of names that differ in case alone the small one stands."""
    names: dict[str, str] = {}
    for column in columns:
        if isinstance(column, str) and (fold(column) not in names or column == fold(column)):
            names[fold(column)] = column
    return names


@dataclass(frozen=True, slots=True)
class Use:
    """The columns that a shape takes from a record, in the record's own spelling."""

    source: tuple[str, ...]
    target: tuple[str, ...]


class Shape(Protocol):
    """A kind of record that can be used."""

    @property
    def name(self) -> str:
        """The words in which people are told what their data is."""

    @property
    def keeps_together(self) -> bool:
        """Whether the examples of one record say so much of each other that none may be measured on while others are
        trained on."""

    def matches(self, fields: Fields) -> bool:
        """Whether a record with these columns and values is of this kind."""

    def use(self, fields: Fields) -> Use:
        """The columns that are taken of such a record."""

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """The examples in a record, and what in it makes none."""
