"""Tables as text: CSV and TSV with whatever delimiter, found from the rows themselves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_client.data.formats.record import IsRecord, Item, Record, Skipped
from edge_client.data.text_lines import MAX_LINE_CHARS
from edge_client.errors import ConfigError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
"""Every delimiter that is looked for, with its name; any other character can be given."""

LOOKED_AT_ROWS = 50
"""Rows that a delimiter is judged by."""


@dataclass(frozen=True, slots=True)
class Delimiter:
    """A character between columns.

    Attributes:
        character: one.
        quoted: whether a quotation mark begins a field that may hold it; some tables of tabs have bare ones.
        is_told: the file's own first line says it, as in "sep=;".
    """

    character: str
    quoted: bool = True
    is_told: bool = False

    @property
    def shown(self) -> str:
        """The character as it can be given on a command line."""
        return "tab" if self.character == "\t" else self.character


@dataclass(frozen=True, slots=True)
class _Trial:
    """How well a delimiter divides a file's first rows; better ones are greater."""

    is_known: bool
    even_share: float
    n_columns: int

    @property
    def score(self) -> tuple[bool, bool, float, int]:
        return (self.n_columns > 1 and self.is_known, self.n_columns > 1, round(self.even_share, 2), self.n_columns)


def parse_delimiter(text: str) -> Delimiter | None:
    """A delimiter as people write it: the character, its name, or "\\t"; None for "". Raises ConfigError."""
    names = {name: character for character, name in DELIMITERS.items()} | {"\\t": "\t"}
    character = names.get(text.lower(), text)
    if not character:
        return None
    if len(character) != 1 or character in '"\r\n':
        raise ConfigError(f"--delimiter {text!r} is no delimiter", f"give one character, or {', '.join(names)}")
    return Delimiter(character)


def find_delimiter(head: str, is_record: IsRecord, is_whole: bool) -> tuple[Delimiter, bool]:
    """The delimiter that divides the first rows best, and whether it divides them into columns at all.

    Args:
        head: the file's first characters.
        is_record: whether columns of these names can be used, which no wrong delimiter brings about.
        is_whole: nothing follows `head`.
    """
    first = head.split("\n", 1)[0].strip()
    if first.lower().startswith("sep=") and len(first) == 5:
        return Delimiter(first[4], is_told=True), True
    best, best_trial = Delimiter(","), _Trial(False, 0.0, 0)
    for character in DELIMITERS:
        for quoted in (True, False):
            delimiter = Delimiter(character, quoted)
            trial = _try(head, delimiter, is_record, is_whole)
            if trial.score > best_trial.score:
                best, best_trial = delimiter, trial
    return best, best_trial.n_columns > 1 and (best_trial.is_known or best_trial.even_share > 0.9)


def _try(head: str, delimiter: Delimiter, is_record: IsRecord, is_whole: bool) -> _Trial:
    rows: list[list[str]] = []
    try:
        for row in _rows(io.StringIO(head, newline=""), delimiter):
            if row:
                rows.append(row)
            if len(rows) > LOOKED_AT_ROWS:
                break
    except csv.Error:
        pass  # judged by the rows before it
    if not is_whole and len(rows) > 2:
        rows.pop()  # cut somewhere
    if not rows:
        return _Trial(False, 0.0, 0)
    n_columns = len(rows[0])
    even = sum(len(row) == n_columns and not _swallows(row, delimiter) for row in rows) / len(rows)
    return _Trial(is_record(dict.fromkeys(column_names(rows[0]))), even, n_columns)


def _swallows(row: Sequence[str], delimiter: Delimiter) -> bool:
    """Whether a field holds what were rows: prose has commas and new lines in it, but hardly tabs."""
    return delimiter.character == "\t" and any("\t" in field and "\n" in field for field in row)


def column_names(header: Sequence[str]) -> list[str]:
    """Names of all columns: those that have none, or one that is taken, are named by their place."""
    names: list[str] = []
    for number, name in enumerate(header, 1):
        name = name.strip().removeprefix("\ufeff")
        names.append(f"column {number}" if not name or name in names else name)
    return names


def read_table(lines: Iterable[tuple[int, str | None]], path: Path, delimiter: Delimiter) -> Iterator[Item]:
    """A record for each row, its columns named by the first row. The csv module joins quoted fields that span lines;
    it refuses fields above 128 KiB by itself."""
    feed = _Feed(lines, path)
    rows = _rows(feed, delimiter)
    header: list[str] | None = None
    while True:
        begins = feed.number + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield from feed.take_skipped()
            yield Skipped(f"{path}:{begins}", f"no CSV ({error})", max(1, feed.number - begins + 1))
            continue
        yield from feed.take_skipped()
        if row is None:
            return
        if feed.ended:  # the row was not complete when its last line came: a quotation mark is open
            n_lost = max(1, feed.number - begins + 1)
            yield Skipped(f"{path}:{begins}", "a quotation mark opens here that is never closed", n_lost)
        elif header is None:
            header = None if delimiter.is_told and begins == 1 else column_names(row) or None
        elif row:
            yield _record(header, row, f"{path}:{feed.number}", delimiter)


def _record(header: Sequence[str], row: list[str], place: str, delimiter: Delimiter) -> Item:
    if any(cell.strip() for cell in row[len(header) :]):
        return Skipped(
            place, f"{len(row)} columns, but the first line names {len(header)}; is a {delimiter.shown} not quoted?"
        )
    cells = row[: len(header)] + [""] * (len(header) - len(row))
    return Record(place, dict(zip(header, cells, strict=True)))


def _rows(lines: Iterable[str], delimiter: Delimiter) -> Iterator[list[str]]:
    if delimiter.quoted:
        return csv.reader(lines, delimiter=delimiter.character)
    return csv.reader(lines, delimiter=delimiter.character, quoting=csv.QUOTE_NONE)


class _Feed:
    """Lines for the csv module, counted; those that are too long are noted and left empty."""

    def __init__(self, lines: Iterable[tuple[int, str | None]], path: Path) -> None:
        self._lines, self._path = iter(lines), path
        self._skipped: list[Skipped] = []
        self.number = 0
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for number, line in self._lines:
            self.number = number
            if line is None:
                self._skipped.append(Skipped(f"{self._path}:{number}", f"longer than {MAX_LINE_CHARS} characters"))
            return "\n" if line is None else line
        self.ended = True
        raise StopIteration

    def take_skipped(self) -> list[Skipped]:
        """The lines that were too long since the last call."""
        skipped, self._skipped = self._skipped, []
        return skipped
