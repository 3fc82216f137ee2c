"""The way of a file into a collection: what it is, how it is decoded, which of its records make examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from edge_client.data.collection import Collection
from edge_client.data.dataset import FileFacts
from edge_client.data.encoding import Encoding, find_encodings
from edge_client.data.files import DataFile, FoundFiles
from edge_client.data.formats.json_document import read_json_document
from edge_client.data.formats.jsonl import read_jsonl
from edge_client.data.formats.kind import Format, find_format, is_parquet
from edge_client.data.formats.parquet import read_parquet
from edge_client.data.formats.record import Item, Record
from edge_client.data.formats.table import Delimiter, parse_delimiter, read_table
from edge_client.data.formats.text_file import BODY, TITLE, read_text_file
from edge_client.data.shapes.chosen import ChosenShape
from edge_client.data.shapes.columns import ColumnsShape
from edge_client.data.shapes.known import find_shape
from edge_client.data.shapes.message_tree import MessageTreeShape
from edge_client.data.shapes.shape import Fields, Use
from edge_client.data.text_lines import text_head, text_lines, text_stream
from edge_client.data.threads import find_thread_columns, join_threads
from edge_client.errors import DataError
from edge_client.jobs.data_spec import DataSpec

TEXT_FILE = ColumnsShape("text files, the first line as title", (BODY,), TITLE)


class Reading:
    """Files that are read, one after another, into a collection.

    Attributes:
        facts: what each of them turned out to be.
    """

    def __init__(self, data: DataSpec, collection: Collection, chosen: ChosenShape | None) -> None:
        self._encoding, self._delimiter = data.encoding, parse_delimiter(data.delimiter)
        self._collection, self._chosen = collection, chosen
        self.facts: list[FileFacts] = []

    def read(self, found: FoundFiles, path: Path) -> None:
        """All files. Of several a file that is refused is skipped and named, and the others are read."""
        if found.are_texts:
            self._read_texts(found.files, path, group=path.name)
            return
        for file in found.files:
            if self._collection.left_out_from:
                return
            try:
                self._read_file(file)
            except DataError as error:
                if len(found.files) == 1:
                    raise
                self._collection.skip(str(file.path), f"the file is left out: {error.message}")

    def _read_file(self, file: DataFile) -> None:
        if is_parquet(file):
            self._read_records(file, read_parquet(file.path), FileFacts(str(file.path), "parquet"))
            return
        encoding = find_encodings([file], self._encoding)[0]
        format, delimiter = find_format(file, text_head(file, encoding), self._is_record, self._delimiter)
        if format == "text":
            self._read_texts([file], file.path, group=file.group)
            return
        is_table = format == "table"
        facts = FileFacts(
            str(file.path),
            "csv" if is_table else format,
            file.compression,
            str(encoding),
            delimiter.shown if is_table else "",
        )
        self._read_records(file, self._items(file, format, encoding, delimiter), facts)

    def _items(self, file: DataFile, format: Format, encoding: Encoding, delimiter: Delimiter) -> Iterator[Item]:
        if format == "table":
            yield from read_table(text_lines(file, encoding), file.path, delimiter)
        elif format == "jsonl":
            yield from read_jsonl(text_lines(file, encoding), file.path)
        else:
            with text_stream(file, encoding) as stream:
                yield from read_json_document(stream, file.path, self._is_record)

    def _read_records(self, file: DataFile, items: Iterator[Item], facts: FileFacts) -> None:
        """Records, each an example or several; or messages in rows of their own, which are joined first."""
        first = next(items, None)
        if first is None:
            self._note(facts, [])
            return
        items = chain([first], items)
        fields = Fields(first.value) if isinstance(first, Record) and isinstance(first.value, dict) else Fields({})
        threads = find_thread_columns(fields) if self._chosen is None else None
        before = self._counts()
        if threads is None:
            self._collection.read(items, file.group)
        else:
            columns = [fields.column(column) for column in threads.all]
            use = Use(tuple(columns), tuple(columns[2:]))
            self._collection.note_use(use, fields.values, "threads of messages")
            self._collection.read(join_threads(items, threads), file.group, MessageTreeShape(), use)
        self._note(facts, before)

    def _read_texts(self, files: Sequence[DataFile], path: Path, group: str) -> None:
        """Texts, a file each."""
        encodings = find_encodings(files, self._encoding)
        before = self._counts()
        for file, encoding in zip(files, encodings, strict=True):
            self._collection.read(read_text_file(file, encoding), group, self._chosen or TEXT_FILE)
        names = ", ".join(dict.fromkeys(map(str, encodings)))
        self._note(FileFacts(str(path), "text", files[0].compression, names, n_files=len(files)), before)

    def _is_record(self, value: Mapping[str, object]) -> bool:
        fields = Fields(value)
        if self._chosen is not None:
            return self._chosen.matches(fields)
        return find_shape(fields) is not None or find_thread_columns(fields) is not None

    def _counts(self) -> list[int]:
        return [len(self._collection.examples), self._collection.n_skipped]

    def _note(self, facts: FileFacts, before: list[int]) -> None:
        n_examples, n_skipped = (after - n for after, n in zip(self._counts(), before or self._counts(), strict=True))
        self.facts.append(replace(facts, n_examples=n_examples, n_skipped=n_skipped))
