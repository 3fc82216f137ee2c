"""Text files: the first line, the title, is the target, and the rest is the source."""

from __future__ import annotations

from collections.abc import Iterator

from edge_client.data.encoding import Encoding
from edge_client.data.files import DataFile
from edge_client.data.formats.record import Item, Record, Skipped
from edge_client.data.text_lines import MAX_LINE_CHARS, text_stream

TITLE, BODY = "title", "body"


def read_text_file(file: DataFile, encoding: Encoding) -> Iterator[Item]:
    """The file as a record of a title and a body."""
    place = str(file.path)
    with text_stream(file, encoding) as stream:
        content = stream.read(MAX_LINE_CHARS + 1)
    if len(content) > MAX_LINE_CHARS:
        yield Skipped(place, f"longer than {MAX_LINE_CHARS} characters")
        return
    title, _, body = content.removeprefix("\ufeff").strip().replace("\r\n", "\n").partition("\n")
    yield Record(place, {TITLE: title, BODY: body})
