"""Text files: the first line, the title, is the target, and the rest is the source.

Files whose names end in .subject or .story have their targets behind marks instead: lines such as "@subject".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge_client.data.encoding import Encoding
from edge_client.data.files import MARKED_SUFFIXES, DataFile
from edge_client.data.formats.record import Item, Record, Skipped
from edge_client.data.text_lines import MAX_LINE_CHARS, text_stream

TITLE, BODY = "title", "body"

_MARK = re.compile(r"^@(\w+)[ \t]*$", re.MULTILINE)


def read_text_file(file: DataFile, encoding: Encoding) -> Iterator[Item]:
    """The file as a record of a title and a body."""
    place = str(file.path)
    with text_stream(file, encoding) as stream:
        content = stream.read(MAX_LINE_CHARS + 1)
    if len(content) > MAX_LINE_CHARS:
        yield Skipped(place, f"longer than {MAX_LINE_CHARS} characters")
        return
    content = content.removeprefix("\ufeff").strip().replace("\r\n", "\n")
    if file.suffix in MARKED_SUFFIXES:
        yield Record(place, _marked(content))
    else:
        title, _, body = content.partition("\n")
        yield Record(place, {TITLE: title, BODY: body})


def _marked(content: str) -> dict[str, object]:
    """The text before the first mark, and what is behind them: highlights are parts of one target, others each one."""
    body, *parts = _MARK.split(content)
    texts = [text.strip() for text in parts[1::2]]
    return {BODY: body, TITLE: "\n".join(texts) if parts[:1] == ["highlight"] else texts}
