"""The encoding of text files: given, marked, valid as UTF-8, or guessed from enough text; else the file is refused.

A file in another encoding than UTF-8 must not lose its lines with accents and keep the others. So either all of it is
read, and the encoding is named, or none of it.
"""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from edge_client.data.encoding_guess import guess_encoding
from edge_client.data.files import DataFile
from edge_client.errors import ConfigError, DataError

SAMPLE_BYTES = 1 << 16
"""Shown to the detector: more says nothing new."""

CHUNK_BYTES = 1 << 20

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding by Python's name for it, and how it was found."""

    name: str
    found: Literal["given", "marked", "valid", "guessed"] = "valid"

    def __str__(self) -> str:
        return f"{self.name} (guessed)" if self.found == "guessed" else self.name


UTF_8 = Encoding("utf-8")


def find_encodings(files: Sequence[DataFile], given: str = "") -> list[Encoding]:
    """The encoding of each file.

    What is not UTF-8 is judged together, so that a folder of short texts says as much as one long file.
    Raises ConfigError for an encoding that nobody knows; DataError where a file is not in the given one, is no text, or
    where there is too little text to tell.
    """
    if given:
        encoding = Encoding(_known(given), "given")
        return [_in_given(file, encoding) for file in files]
    marked = [_marked(file) for file in files]
    lines = _Lines()
    foreign = {
        place
        for place, (file, mark) in enumerate(zip(files, marked, strict=True))
        if mark is None and not _is_valid(file, "utf-8")
    }
    for place, mark in enumerate(marked):
        if place in foreign or (len(files) > 1 and mark is None):
            lines.count(files[place])
    guessed = _guess(lines) if foreign and lines.n_bad > lines.n_good else UTF_8
    return [guessed if place in foreign else mark or UTF_8 for place, mark in enumerate(marked)]


@dataclass(slots=True)
class _Lines:
    """Lines with other than ASCII characters: those that are valid, and those that are not."""

    encoding: str = "utf-8"
    n_good: int = 0
    n_bad: int = 0
    first_bad: str = ""
    first_file: DataFile | None = None
    sample: list[bytes] = field(default_factory=list)
    n_bytes: int = 0

    def count(self, file: DataFile) -> None:
        with file.open() as stream:
            number = 0
            while line := stream.readline(CHUNK_BYTES):
                number += 1
                if line.isascii() or (len(line) == CHUNK_BYTES and not line.endswith(b"\n")):
                    continue  # a part of a line may end within a character
                try:
                    line.decode(self.encoding)
                    self.n_good += 1
                except UnicodeDecodeError:
                    self.n_bad += 1
                    if self.first_file is None:
                        self.first_file, self.first_bad = file, f"{file.path}:{number}"
                    if self.n_bytes < SAMPLE_BYTES:
                        self.sample.append(line[:SAMPLE_BYTES])
                        self.n_bytes += len(line)


def _marked(file: DataFile) -> Encoding | None:
    """The encoding that a file's first bytes tell. Raises DataError for what is no text."""
    for mark, name in _MARKS:
        if file.head.startswith(mark):
            return Encoding(name, "marked")
    if b"\0" not in file.head:
        return None
    even, odd = file.head[::2].count(0), file.head[1::2].count(0)
    # Western text in UTF-16 is every other byte zero.
    if max(even, odd) > len(file.head) // 5 and min(even, odd) < len(file.head) // 20:
        return Encoding("utf-16-le" if odd > even else "utf-16-be", "guessed")
    if file.head.count(0) > len(file.head) // 100:
        raise DataError(f"{file.path} holds no text", "use JSON lines, JSON, CSV, Parquet or plain text")
    return None


def _is_valid(file: DataFile, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with file.open() as stream:
        try:
            while chunk := stream.read(CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _guess(lines: _Lines) -> Encoding:
    name, is_sure = guess_encoding(lines.sample)
    if is_sure:
        return Encoding(name, "guessed")
    assert lines.first_file is not None
    path = shlex.quote(str(lines.first_file.path))
    raise DataError(
        f"{lines.first_bad} is not UTF-8, and there is too little such text to tell for sure what it is ({name}?)",
        f"name it, as in --encoding {name}, or write the file anew: iconv -f {name} -t utf-8 {path} > utf8.txt",
    )


def _known(given: str) -> str:
    try:
        info = codecs.lookup(given)
        "".encode(info.name)  # raises for codecs from bytes to bytes
    except LookupError as error:
        raise ConfigError(
            f"there is no encoding {given!r}", "give one such as utf-8, utf-16, cp1252, iso8859-15 or shift_jis"
        ) from error
    return info.name


def _in_given(file: DataFile, encoding: Encoding) -> Encoding:
    if not _is_valid(file, encoding.name):
        lines = _Lines(encoding.name)
        lines.count(file)
        if lines.n_bad > lines.n_good:
            raise DataError(
                f"{file.path} is not in {encoding.name}: {lines.first_bad or 'it'} cannot be read as that",
                "leave --encoding out to have it found, or name another one",
            )
    return encoding
