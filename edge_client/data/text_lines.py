"""Text of a file, line by line or as a stream, without ever holding more than one line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from edge_client.data.encoding import Encoding
from edge_client.data.files import DataFile

MAX_LINE_CHARS = 1 << 20
"""Longest line, record or text file that is read. A mebi-character is ten times a long report; the models see some 512
tokens of it."""


@contextmanager
def text_stream(file: DataFile, encoding: Encoding) -> Iterator[io.TextIOWrapper]:
    """The file's text. Bytes that are not in the encoding become lone surrogates, which spoil their own record only."""
    wide = encoding.name.startswith(("utf-16", "utf-32"))
    with file.open() as raw:
        yield io.TextIOWrapper(
            raw, encoding.name, errors="replace" if wide else "surrogateescape", newline=_line_end(file, wide)
        )


def text_head(file: DataFile, encoding: Encoding) -> str:
    """The text of the file's first bytes, without a mark; its last character may be missing."""
    return file.head.decode(encoding.name, "replace").removeprefix("\ufeff")


def text_lines(file: DataFile, encoding: Encoding) -> Iterator[tuple[int, str | None]]:
    """(line number, line) of a file; None for a line that is longer than MAX_LINE_CHARS."""
    with text_stream(file, encoding) as stream:
        number, whole = 1, True
        while line := stream.readline(MAX_LINE_CHARS + 1):
            ended = line.endswith(("\n", "\r"))
            if whole:
                fits = ended or len(line) <= MAX_LINE_CHARS
                yield number, line.removeprefix("\ufeff") if fits else None
            whole = ended
            number += ended


def _line_end(file: DataFile, wide: bool) -> str:
    """The character at the end of lines: a carriage return alone is what some spreadsheets on a Mac still write."""
    return "\r" if not wide and b"\r" in file.head and b"\n" not in file.head else "\n"
