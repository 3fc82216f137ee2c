"""Published sets: the training parts that may join the corpus, and the texts that must not be in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from builtin_base.docstrings import hash_share
from builtin_base.training.text.documents import MAX_DOCUMENT_CHARS, Document, Harvest, Pair

MAX_EXAMPLE_CHARS = 1_600
"""Text kept of one example's source, in characters."""

ANSWER_WORDS = range(3, 46)
"""Words of an answer to learn: one word says nothing, a long text does not fit a target."""

SHARE = 0.25
"""Part of a published set that joins, chosen by a hash: benchmarks train on the sets too, and need text that is new."""


def read_examples(path: Path, share: float = SHARE) -> Harvest:
    """Read `share` of the training part of a published set, ``{"source", "target"}`` a line, as documents and as pairs.

    The origin is the set's name, so that a batch mixes it by weight; targets of one word and very long ones are left.
    """
    name = path.name.split(".")[0]
    documents: list[Document] = []
    pairs: list[Pair] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        source, target = str(row["source"]).strip(), str(row["target"]).strip()
        if hash_share("published" + source) >= share:
            continue
        documents.append(Document("conversation", name, f"{source}\n{target}"[:MAX_DOCUMENT_CHARS]))
        if len(target.split()) in ANSWER_WORDS:
            pairs.append(Pair(f"answer:{name}", name, source[:MAX_EXAMPLE_CHARS], target))
    return Harvest(documents, pairs)


def reserved_texts(paths: Iterable[Path]) -> Iterator[str]:
    """Yield every text of sets that are used to test."""
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield str(row["source"])
            yield str(row.get("target", row.get("generation", "")))
            yield from map(str, row.get("targets", ()))
