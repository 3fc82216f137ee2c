"""Files of text as a board's owner has them, in any format: examples, or an error that says what is wrong.

An input's first line is the file's name, the rest its content. Parquet is left out: all of it is read by pyarrow.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_client.data.load import load_data
from edge_client.errors import ClientError
from edge_client.jobs.data_spec import DataSpec
from fuzz.contract import Judge, Target, require
from fuzz.mutations import behind_first_line, mutate_bytes, mutate_json

NAMES = ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.md", "a.story", "a.dat", "a.csv.gz", "a.jsonl.gz")
"""File names of every kind that is told by its ending."""

_PIECES = (
    b'"',
    b"\n",
    b",",
    b"\t",
    b";",
    b"\r\n",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xe9",
    b"\x00",
    b"sep=;",
    b"\\ud800",
)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder with one file of data at a time."""

    path: Path

    def check(self, data: bytes) -> str:
        name, _, content = data.partition(b"\n")
        text = name.decode("latin-1")
        file = self.path / (text if text in NAMES else NAMES[sum(name) % len(NAMES)])
        file.write_bytes(content)
        try:
            found = load_data(DataSpec(str(file)))
        except ClientError as error:
            require(str(error), "a refusal is a sentence")
            return "refused"
        finally:
            file.unlink()
        for example in (*found.train, *found.held_out):
            require(example.source.encode() is not None and example.target.encode() is not None, "examples are Unicode")
        return "read"


@contextmanager
def _open(folder: Path) -> Iterator[Judge]:
    yield Judge(_Folder(folder).check)


def _mutate_content(content: bytes, rng: random.Random) -> bytes:
    """One line, by its JSON values where it has some, or any piece of the file."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    if lines[place][:1] in (b"{", b"[") and rng.random() < 0.6:
        lines[place] = mutate_json(lines[place], rng)
        return b"\n".join(lines)
    if rng.random() < 0.5:
        at = rng.randrange(len(content) + 1)
        return content[:at] + rng.choice(_PIECES) + content[at:]
    return mutate_bytes(content, rng, lines)


DATA = Target(
    name="data",
    about="files of text as a board reads them",
    max_bytes=8192,
    open=_open,
    mutate=behind_first_line(_mutate_content, [name.encode() for name in NAMES]),
)
