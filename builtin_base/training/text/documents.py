"""Documents and pairs, which the readers yield, and the folder in which a gathered corpus is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builtin_base import docstrings

MAX_DOCUMENT_CHARS = 4_000
"""Longest piece of running text kept as one document, in characters (about 1,000 tokens)."""

REPORT = "corpus.json"
"""File beside a corpus that counts what is in it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of running text, for restoring spans. `origin` names the kind of source, `group` the source itself."""

    origin: str
    group: str
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and the answer to write. Fields as in `Document` and `braid_common.example.Example`.

    An origin such as ``title:page`` names its task in front; one without a task is a text with its summary line.
    """

    origin: str
    group: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Harvest:
    """Documents and pairs of one source, or of all."""

    documents: list[Document]
    pairs: list[Pair]


def write_corpus(folder: Path, corpus: Harvest, report: Mapping[str, Any]) -> None:
    """Write ``documents.jsonl``, ``pairs.jsonl`` and ``corpus.json`` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("documents", corpus.documents), ("pairs", corpus.pairs)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def read_corpus(folder: Path) -> Harvest:
    """Read what `write_corpus` wrote."""
    with (folder / "documents.jsonl").open(encoding="utf-8") as file:
        documents = [Document(**json.loads(line)) for line in file]
    with (folder / "pairs.jsonl").open(encoding="utf-8") as file:
        pairs = [Pair(**json.loads(line)) for line in file]
    return Harvest(documents, pairs)


def cut_at_paragraphs(text: str) -> Iterator[str]:
    """Cut a long text at paragraphs into pieces of about half of `MAX_DOCUMENT_CHARS` characters."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if piece and len(piece) + len(paragraph) > MAX_DOCUMENT_CHARS // 2:
            yield piece.strip()
            piece = ""
        piece += f"{paragraph.strip()[:MAX_DOCUMENT_CHARS]}\n\n"
    yield piece.strip()


def described(origin: str, name: str, body: str, summary: str) -> Iterator[Pair]:
    """Pair a text with the line that describes it, where both say enough."""
    docstring = docstrings.Docstring(name, name, f"{summary[:1].upper()}{summary[1:]}\n\n{body}")
    pair = docstrings.to_pair(docstring)
    if pair:
        yield Pair(origin, name, *pair)
