"""A board's own text: read from JSONL, CSV, a folder of text or the docstrings of what is installed here.

A bad line is counted and the first one named; it never stops the others. Only the standard library is used, for the
client that waits for work checks its data too.

Accepted key pairs of JSONL objects and CSV headers, the first that is present wins: see KEY_PAIRS.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from braid_common.example import Example
from builtin_base import docstrings
from edge_client.errors import DataError
from edge_client.jobs.data_spec import DataSpec

KEY_PAIRS = (
    ("source", "target"),
    ("input", "output"),
    ("text", "summary"),
    ("document", "summary"),
    ("article", "highlights"),
    ("dialogue", "summary"),
    ("question", "answer"),
    ("instruction", "response"),
    ("prompt", "completion"),
)
"""(source key, target key) in order of preference: ours, then those of the data sets that people have."""

MAX_LINE_BYTES = 1 << 20
"""Longest line or text file that is read. 1 MiB is ten times a long report; the models see some 512 tokens of it."""

MAX_EXAMPLES = 200_000
"""Examples kept. At 1 kB each this is 200 MB, more than a board can train on in a run."""

HELD_OUT_SHARE = 0.1
"""Part kept apart to measure on, never trained on."""

BUILTIN = "builtin:docstrings"

_HINT = 'each line or row needs two texts, such as {"source": "…", "target": "…"}'


@dataclass(frozen=True, slots=True)
class Data:
    """Examples of one board.

    Attributes:
        train, held_out: divided by a hash of the text, so that every run and restart divides alike.
        n_skipped: lines or files that could not be used.
        first_skipped: sentence about the first of them with file and line, "" where there is none.
    """

    train: list[Example]
    held_out: list[Example]
    n_skipped: int = 0
    first_skipped: str = ""


@dataclass(slots=True)
class _Reading:
    """Examples that have been read so far, and what could not be."""

    examples: list[Example] = field(default_factory=list)
    n_skipped: int = 0
    first_skipped: str = ""

    def skip(self, place: str, why: str) -> None:
        self.n_skipped += 1
        self.first_skipped = self.first_skipped or f"{place}: {why}"

    @property
    def full(self) -> bool:
        return len(self.examples) >= MAX_EXAMPLES


def load_data(data: DataSpec) -> Data:
    """Read what `--data` names: a .jsonl/.json or .csv file, a folder of .txt files, or "builtin:docstrings[/LIBRARY]".

    In a text file the first line (the title) is the target and the rest is the source.
    Raises DataError where nothing is there, or nothing in it can be used; the hint says what is expected.
    """
    spec, reading = data.path, _Reading()
    if spec.startswith("builtin:"):
        _read_builtin(spec, reading)
    else:
        _read_path(Path(spec).expanduser(), reading)
    if not reading.examples:
        first = f"; first: {reading.first_skipped}" if reading.first_skipped else ""
        raise DataError(f"no usable example in {spec} ({reading.n_skipped} unusable{first})", _HINT)
    train, held_out = _split(reading.examples)
    return Data(train, held_out, reading.n_skipped, reading.first_skipped)


def _read_builtin(spec: str, reading: _Reading) -> None:
    name, _, library = spec.partition("/")
    if name != BUILTIN or spec == f"{BUILTIN}/":
        raise DataError(f"unknown builtin data {spec!r}", f"use {BUILTIN} or {BUILTIN}/LIBRARY")
    libraries = [library] if library else docstrings.installed_libraries()
    seen: set[tuple[str, str]] = set()
    for package in libraries:
        try:
            examples = docstrings.extract(package)
        except LookupError as error:
            if library:
                raise DataError(
                    f"builtin docstrings: {error}", "name an importable library with Python source"
                ) from error
            continue
        for example in examples:
            key = (example.source, example.target)
            if key not in seen and not reading.full:
                seen.add(key)
                reading.examples.append(example)


def _read_path(path: Path, reading: _Reading) -> None:
    try:
        if path.is_dir():
            _read_folder(path, reading)
        elif path.suffix.lower() == ".csv":
            _read_csv(path, reading)
        elif path.suffix.lower() in (".jsonl", ".json", ".ndjson"):
            _read_jsonl(path, reading)
        elif path.exists():
            raise DataError(f"{path} is of no known kind", "use a .jsonl or .csv file, or a folder of .txt files")
        else:
            raise DataError(f"no data at {path}", "check the path given with --data")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", "check --data and its permissions") from error


def _read_jsonl(path: Path, reading: _Reading) -> None:
    for number, line in _lines(path):
        place = f"{path}:{number}"
        if line is None:
            reading.skip(place, f"longer than {MAX_LINE_BYTES} bytes")
        elif line.strip() and not reading.full:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                reading.skip(place, f"no JSON ({error})")
                continue
            _take(record, place, path.stem, reading)


def _read_csv(path: Path, reading: _Reading) -> None:
    """The csv module joins quoted fields that span lines; it refuses fields above 128 KiB by itself."""
    header: list[str] | None = None
    rows = csv.reader(_csv_lines(path, reading))
    while not reading.full:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            reading.skip(f"{path}:{rows.line_num}", f"no CSV ({error})")
            continue
        if header is None:
            header = [name.strip().lower() for name in row]
        elif row:
            _take(dict(zip(header, row, strict=False)), f"{path}:{rows.line_num}", path.stem, reading)


def _csv_lines(path: Path, reading: _Reading) -> Iterator[str]:
    """Lines as text; bytes that are no UTF-8 become surrogates, which spoil their own record only."""
    for number, line in _lines(path):
        if line is None:
            reading.skip(f"{path}:{number}", f"longer than {MAX_LINE_BYTES} bytes")
        yield (line or b"\n").decode("utf-8", "surrogateescape")


def _read_folder(path: Path, reading: _Reading) -> None:
    for file in sorted(path.rglob("*.txt")):
        if reading.full:
            return
        place = str(file)
        try:
            with file.open("rb") as stream:
                content = stream.read(MAX_LINE_BYTES + 1)
            if len(content) > MAX_LINE_BYTES:
                raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
            title, _, body = content.decode("utf-8-sig").strip().partition("\n")
        except (OSError, ValueError) as error:
            reading.skip(place, str(error))
            continue
        _add(place, path.name, body, title, reading)


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """(line number, line) without ever holding more than one line; None for one that is too long."""
    with path.open("rb") as file:
        number, whole = 1, True
        while line := file.readline(MAX_LINE_BYTES + 1):
            ended = line.endswith(b"\n")
            if whole:
                fits = ended or len(line) <= MAX_LINE_BYTES
                yield number, line.removeprefix(b"\xef\xbb\xbf") if fits else None
            whole = ended
            number += ended


def _take(record: object, place: str, group: str, reading: _Reading) -> None:
    """Add the example that a JSON value or CSV row holds, or count it as skipped."""
    if not isinstance(record, dict):
        reading.skip(place, "not an object with two texts")
        return
    for source_key, target_key in KEY_PAIRS:
        if source_key in record and target_key in record:
            _add(place, group, record[source_key], record[target_key], reading)
            return
    pairs = ", ".join("/".join(pair) for pair in KEY_PAIRS)
    reading.skip(place, f"none of the key pairs {pairs} is there")


def _add(place: str, group: str, source: object, target: object, reading: _Reading) -> None:
    if not isinstance(source, str) or not isinstance(target, str):
        reading.skip(place, "source or target is not text")
    elif not source.strip() or not target.strip():
        reading.skip(place, "source or target is empty")
    elif not (_is_unicode(source) and _is_unicode(target)):
        reading.skip(place, "not UTF-8")
    else:
        reading.examples.append(Example(place, group, source.strip(), target.strip()))


def _is_unicode(text: str) -> bool:
    """False for lone surrogates: escaped bytes of a file that is not UTF-8, or a broken \\ud800 in JSON."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split(examples: Iterable[Example]) -> tuple[list[Example], list[Example]]:
    """Divide by hash; with two examples or more, each side gets at least one."""
    train, held_out = docstrings.split(examples, held_out_share=HELD_OUT_SHARE)
    if not held_out and len(train) > 1:
        lowest = min(train, key=_share)
        return [example for example in train if example is not lowest], [lowest]
    if not train:
        highest = max(held_out, key=_share)
        return [highest], [example for example in held_out if example is not highest]
    return train, held_out


def _share(example: Example) -> float:
    return docstrings.hash_share(f"{example.source}\0{example.target}")
