"""The format of a file, by its content; its name decides only where the content allows several."""

from __future__ import annotations

import json
from typing import Literal

from edge_client.data.files import HEAD_BYTES, MARKED_SUFFIXES, PARQUET_MAGIC, TEXT_SUFFIXES, DataFile
from edge_client.data.formats.record import IsRecord
from edge_client.data.formats.table import Delimiter, find_delimiter

Format = Literal["jsonl", "json", "table", "parquet", "text"]

_LINES_OF_JSON = (".jsonl", ".ndjson", ".json")
_TABLES = (".csv", ".tsv", ".tab")


def is_parquet(file: DataFile) -> bool:
    """Whether the file is Parquet, which is no text at all."""
    return file.head.startswith(PARQUET_MAGIC)


def find_format(file: DataFile, head: str, is_record: IsRecord, given: Delimiter | None) -> tuple[Format, Delimiter]:
    """The format of a text file and, for a table, its delimiter.

    Args:
        file: with its name.
        head: its first text.
        is_record: whether an object or row with these columns can be used.
        given: delimiter that the user named: then it is a table.
    """
    is_whole = len(file.head) < HEAD_BYTES
    delimiter, divides = (given, True) if given else find_delimiter(head, is_record, is_whole)
    assert delimiter is not None
    json_format = None if given else _json_format(head, is_whole, file.suffix, is_record)
    if json_format:
        return json_format, delimiter
    if given or file.suffix in _TABLES:
        return "table", delimiter
    if file.suffix in _LINES_OF_JSON:
        return "jsonl", delimiter
    if (
        file.suffix in MARKED_SUFFIXES
        or not divides
        or (file.suffix in TEXT_SUFFIXES and not _is_known_table(head, is_record, delimiter))
    ):
        return "text", delimiter
    return "table", delimiter


def _is_known_table(head: str, is_record: IsRecord, delimiter: Delimiter) -> bool:
    names = [name.strip(' \t\r"') for name in head.split("\n", 1)[0].split(delimiter.character)]
    return delimiter.is_told or is_record(dict.fromkeys(names))


def _json_format(head: str, is_whole: bool, suffix: str, is_record: IsRecord) -> Literal["jsonl", "json"] | None:
    """JSON lines or a document; None for what does not begin as JSON."""
    lines = [line for line in head.split("\n") if line.strip()]
    if not lines or lines[0].lstrip()[0] not in "{[":
        return None
    is_object, is_called_lines = lines[0].lstrip()[0] == "{", suffix in (".jsonl", ".ndjson")
    if len(lines) == 1 and not is_whole:
        return "jsonl" if is_object and is_called_lines else "json"
    if not is_whole:
        lines.pop()  # it may be cut
    first = _parse(lines[0])
    if len(lines) == 1:
        if is_called_lines and isinstance(first, dict) and _is_one_record(first, is_record):
            return "jsonl"
        return "json" if first is not None else _by_name(suffix)
    if isinstance(first, (dict, list)) or (is_object and isinstance(_parse(lines[1]), dict)):
        return "jsonl"  # of which the first line may be damaged
    return _by_name(suffix)


def _by_name(suffix: str) -> Literal["json"] | None:
    """A document over several lines; but a table may have a bracket in its header."""
    return None if suffix in _TABLES else "json"


def _is_one_record(value: dict[str, object], is_record: IsRecord) -> bool:
    """Whether the only line of a file is a record, not an object of columns or one that holds records."""
    if all(isinstance(one, (list, dict)) for one in value.values()):
        return False
    has_objects = any(isinstance(one, list) and one and isinstance(one[0], dict) for one in value.values())
    return is_record(value) or not has_objects


def _parse(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
