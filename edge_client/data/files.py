"""The files that `--data` names, found in folders, opened through their compression."""

from __future__ import annotations

import gzip
import importlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from edge_client.errors import ConfigError, DataError

RECORD_SUFFIXES = frozenset((".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".parquet", ".pq"))
TEXT_SUFFIXES = frozenset((".txt", ".text", ".md", ".markdown"))
MARKED_SUFFIXES = frozenset((".subject", ".story"))
"""Texts with parts behind marks such as "@subject": AESLC's emails, CNN's articles."""

COMPRESSED_SUFFIXES = frozenset((".gz", ".gzip", ".zst", ".zstd"))

HEAD_BYTES = 1 << 16
"""Looked at to find out what a file is. 64 KiB hold some hundred rows of a table, or a page-long header."""

_COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or export the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet or document", "export the sheet as CSV (UTF-8)"),
    (b"%PDF", "a PDF", "give its text, as .txt files in a folder"),
    (b"SQLite format 3", "a database", "export the table as CSV, with its columns' names in the first line"),
    (b"ARROW1", "an Arrow file", "write it as Parquet or JSON lines: Dataset.to_parquet(…) or to_json(…)"),
    (b"BZh", "compressed by bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it with unxz"),
)
PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file to read.

    Attributes:
        path: where it is.
        compression: "gzip", "zstd" or ""; by its first bytes, whatever it is called.
        head: its first bytes, unpacked.
    """

    path: Path
    compression: str
    head: bytes

    @property
    def suffix(self) -> str:
        """The ending that says what is in it, in small letters: ".csv" of "a.CSV.gz"."""
        return Path(self._name).suffix.lower()

    @property
    def group(self) -> str:
        """The name without endings; examples of one file belong together."""
        return Path(self._name).stem

    @property
    def _name(self) -> str:
        return self.path.stem if self.path.suffix.lower() in COMPRESSED_SUFFIXES else self.path.name

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The content, unpacked. Raises DataError where it cannot be read to its end."""
        with read_errors(self.path), _open(self.path, self.compression) as stream:
            yield stream


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The files that a path names.

    Attributes:
        files: to read, in order.
        are_texts: each is one text, not a list of records.
        left_out: files of a folder that are not read.
    """

    files: tuple[DataFile, ...]
    are_texts: bool = False
    left_out: tuple[Path, ...] = ()


def find_files(path: Path) -> FoundFiles:
    """The file at `path`, or what can be read in the folder there: files of records or, where there are none, texts.

    Raises DataError where there is nothing.
    """
    with read_errors(path):
        if path.is_dir():
            return _in_folder(path)
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is neither a file nor a folder", "save the data as a file first")
        return FoundFiles((open_file(path),))


def open_file(path: Path) -> DataFile:
    """A look at a file's first bytes. Raises DataError for kinds of files that hold no plain data."""
    with path.open("rb") as raw:
        packed = raw.read(HEAD_BYTES)
    compression = next((name for magic, name in _COMPRESSIONS if packed.startswith(magic)), "")
    head = packed
    if compression:
        with read_errors(path), _open(path, compression) as stream:
            head = stream.read(HEAD_BYTES)
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            raise DataError(f"{path} is {what}, which cannot be read", hint)
    return DataFile(path, compression, head)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn what can go wrong while bytes are read and unpacked into a DataError that names the file."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", "check --data and its permissions") from error
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # its module may not be there to name it
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is cut off or damaged: {error}", "copy or download it again")


def _open(path: Path, compression: str) -> IO[bytes]:
    if compression == "gzip":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if compression == "zstd":
        for module in ("compression.zstd", "backports.zstd"):  # the first is Python's own from 3.14 on
            try:
                return cast("IO[bytes]", importlib.import_module(module).open(path, "rb"))
            except ImportError:
                continue
        raise ConfigError(f"{path} is compressed by zstd", "pip install 'braid-fl[zstd]', or unpack it with unzstd")
    return path.open("rb")


def _in_folder(folder: Path) -> FoundFiles:
    records, texts, left_out = [], [], []
    for path in sorted(folder.rglob("*")):
        if any(part.startswith((".", "__")) for part in path.relative_to(folder).parts) or not path.is_file():
            continue  # hidden files, editors' copies, what other systems put into archives
        suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSED_SUFFIXES]
        suffix = suffixes[-1] if suffixes else ""
        if suffix in TEXT_SUFFIXES | MARKED_SUFFIXES:
            texts.append(path)
        elif suffix in RECORD_SUFFIXES or _holds_records(path):
            records.append(path)
        else:
            left_out.append(path)
    if records:
        return FoundFiles(tuple(map(open_file, records)), left_out=(*texts, *left_out))
    if texts:
        return FoundFiles(tuple(map(open_file, texts)), are_texts=True, left_out=tuple(left_out))
    others = ", ".join(path.name for path in left_out[:3])
    raise DataError(
        f"no data in the folder {folder}" + (f" (there is {others})" if others else ""),
        "put .jsonl, .json, .csv, .tsv, .parquet, .txt or .md files there",
    )


def _holds_records(path: Path) -> bool:
    """Whether a file with an unknown ending begins as JSON or Parquet does."""
    try:
        head = open_file(path).head
    except (DataError, ConfigError):
        return False
    return head.startswith(PARQUET_MAGIC) or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:2] in (b'{"', b"[{", b"[\n", b"{\n")
