"""JSON documents: an array of records, an object that holds one, or an object of columns; read piece by piece.

The standard library's decoder takes one value off the front of a buffer; what is here feeds it. Of an array no more
than one element is ever in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from edge_client.data.formats.record import IsRecord, Item, Record
from edge_client.data.text_lines import MAX_LINE_CHARS
from edge_client.errors import DataError

CHUNK_CHARS = 1 << 16

MAX_RECORD_CHARS = MAX_LINE_CHARS
"""Longest element of an array: as long as a line of JSON lines may be."""


_BEHIND = tuple(",]} \t\r\n")
"""Characters that may follow a number."""


class _TooLongError(Exception):
    """A value does not end within MAX_RECORD_CHARS."""


def read_json_document(stream: TextIO, path: Path, is_record: IsRecord) -> Iterator[Item]:
    """The records of a document: elements of its array, or of the arrays in its object.

    Raises DataError where the document is cut off or is no JSON: what is behind the fault cannot be told from damage,
    and half a document is nothing to train on unasked.
    """
    text = _Text(stream, path)
    while first := text.peek():
        if first == "[":
            yield from text.elements()
        elif first == "{":
            yield from _object(text, is_record)
        else:
            place = text.place
            yield Record(place, text.value())


def _object(text: _Text, is_record: IsRecord) -> Iterator[Item]:
    place = text.place
    try:
        value = text.value()
    except _TooLongError:
        yield from text.elements_of_members()
        return
    records = _rows_of_columns(value) or ([value] if is_record(value) else _records_inside(value))
    yield from (Record(place, record) for record in records)


def _rows_of_columns(value: Mapping[str, object]) -> list[object]:
    """The rows of an object of columns: lists of equal length or, as pandas writes tables, names and rows or cells by
    row; else none."""
    columns = list(value.values())
    if len(columns) < 2:
        return []
    names, rows = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
        column_names = list(map(str, names))  # numbers, where a table had no header
        return [dict(zip(column_names, row, strict=False)) for row in rows]  # as pandas writes one that is split
    if all(isinstance(column, list) for column in columns):
        lists = [column for column in columns if isinstance(column, list)]
        has_objects = any(isinstance(cell, (dict, list)) for column in lists for cell in column)
        if has_objects or len(lists[0]) < 2 or len({len(column) for column in lists}) > 1:
            return []
        return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
    tables = [column for column in columns if isinstance(column, dict)]
    keys = list(tables[0]) if len(tables) == len(columns) else []
    if not keys or not all(key.isdecimal() for key in keys):
        return []
    return [{name: column.get(key) for name, column in zip(value, tables, strict=True)} for key in keys]


def _records_inside(value: Mapping[str, object]) -> list[object]:
    """The elements of an object's arrays, or the objects under its keys where there is nothing else; else itself."""
    lists = [element for element in value.values() if isinstance(element, list)]
    elements: list[object] = [element for one in lists for element in one if isinstance(element, (dict, list))]
    objects: list[object] = [element for element in value.values() if isinstance(element, dict)]
    return elements or (objects if len(objects) == len(value) else []) or [value]


class _Text:
    """A stream with a buffer, of which values are taken."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False
        self._decoder = json.JSONDecoder()

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self._path}:{self._line}"

    def peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        while True:
            while self._at < len(self._buffer):
                character = self._buffer[self._at]
                if character not in " \t\r\n\ufeff":
                    return character
                self._line += character == "\n"
                self._at += 1
            if not self._fill():
                return ""

    def value(self) -> Any:
        """The next value. Raises _TooLongError, and DataError where there is none."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos >= len(self._buffer) - 8  # as in "tru"
                if not is_cut or self._ended:
                    raise self._broken(error.msg, error.pos) from error
            except RecursionError as error:
                raise self._broken("nested too deeply", self._at) from error
            else:
                if end - self._at > MAX_RECORD_CHARS:
                    raise _TooLongError
                is_number = isinstance(value, (int, float))  # it may go on behind the buffer, or with a point in it
                if self._ended or (self._buffer[end : end + 1] in _BEHIND if is_number else end < len(self._buffer)):
                    self._line += self._buffer.count("\n", self._at, end)
                    self._at = end
                    return value
            if len(self._buffer) - self._at > MAX_RECORD_CHARS:
                raise _TooLongError
            self._fill()

    def elements(self) -> Iterator[Item]:
        """The elements of the array that begins here."""
        self._at += 1
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            self.peek()
            place = self.place
            try:
                yield Record(place, self.value())
            except _TooLongError:
                raise self._too_long() from None
            if self._separator("]"):
                return

    def elements_of_members(self) -> Iterator[Item]:
        """The elements of the arrays in the object that begins here, and the objects in it."""
        self._at += 1
        while True:
            if self.peek() != '"':
                raise self._broken("no key", self._at)
            try:
                self.value()
                if self.peek() != ":":
                    raise self._broken("no colon behind a key", self._at)
                self._at += 1
                if self.peek() == "[":
                    yield from self.elements()
                else:
                    place, value = self.place, self.value()
                    if isinstance(value, dict):
                        yield Record(place, value)
            except _TooLongError:
                raise self._too_long() from None
            if self._separator("}"):
                return

    def _separator(self, end: str) -> bool:
        """Take the comma before the next element, or the end: then true."""
        character = self.peek()
        if character not in (",", end) or not character:
            raise self._broken(f"neither a comma nor {end}" if character else "it ends in the middle", self._at)
        self._at += 1
        return character == end

    def _fill(self) -> bool:
        """Read on; False at the end. What was taken is dropped."""
        chunk = self._stream.read(max(CHUNK_CHARS, len(self._buffer) - self._at))  # doubles while a value is not whole
        self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        self._ended = not chunk
        return bool(chunk)

    def _broken(self, why: str, at: int) -> DataError:
        line = self._line + self._buffer.count("\n", self._at, at)
        why = "it ends in the middle" if self._ended and at >= len(self._buffer) - 1 else why
        return DataError(
            f"{self._path}:{line} is no JSON: {why}",
            "mend the file, or write one object a line and call it .jsonl",
        )

    def _too_long(self) -> DataError:
        return DataError(
            f"{self.place}: one record takes more than {MAX_RECORD_CHARS} characters",
            "write the records one a line, as .jsonl (pandas: to_json(path, orient='records', lines=True))",
        )
