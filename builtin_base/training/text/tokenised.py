"""Tokenise a gathered corpus into the files of a run's folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from braid_common.text_form import DEFAULT_PREFIX
from builtin_base.docstrings import hash_share
from builtin_base.training.text.documents import Document, Harvest, Pair
from builtin_base.training.text.rows import Ids, Pairs, Text, sort, write

HELD_OUT_SHARE = 0.01
"""Share of documents and of pairs that no step trains on."""

MAX_SOURCE, MAX_TARGET = 320, 64
"""Longest source and target kept of a pair, in tokens; a batch may cut its sources further."""

N_SENTENCES, SENTENCE_CHARS = 40_000, range(20, 110)
"""Sentences kept for programmatic tasks, and their length in characters."""

_CHUNK = 4_096
_SENTENCE = re.compile(r"[A-Z][^.!?\n]{15,110}[.!?](?=\s|$)")


def write_text(folder: Path, corpus: Harvest, tokenizer: Tokenizer) -> None:
    """Write ``train.safetensors``, ``held_out.safetensors`` and ``sentences.json`` to a folder.

    The side of a text is decided by a hash of it, so it is the same in every run.
    """
    for name, held_out in (("held_out", True), ("train", False)):
        documents = [d for d in corpus.documents if (hash_share(d.text) < HELD_OUT_SHARE) == held_out]
        pairs = [p for p in corpus.pairs if (hash_share(f"{p.source}\0{p.target}") < HELD_OUT_SHARE) == held_out]
        write(folder / f"{name}.safetensors", Text(_streams(documents, tokenizer), _pairs(pairs, tokenizer)))
        if not held_out:
            (folder / "sentences.json").write_text(json.dumps(_sentences(documents)), encoding="utf-8")


def _streams(documents: Iterable[Document], tokenizer: Tokenizer) -> dict[str, Ids]:
    by_origin: dict[str, list[str]] = {}
    for document in sorted(documents, key=lambda d: hash_share(d.group + d.text)):  # neighbours in a row are unrelated
        by_origin.setdefault(document.origin, []).append(document.text)
    streams = {}
    for origin, texts in by_origin.items():
        encodings = (e for chunk in _chunks(texts) for e in tokenizer.encode_batch_fast(chunk))
        streams[origin] = np.concatenate([np.array(e.ids, dtype=np.uint16) for e in encodings])
    return streams


def _pairs(pairs: list[Pair], tokenizer: Tokenizer) -> Mapping[tuple[str, str], Pairs]:
    """Tokenise pairs by (task, origin); an origin such as ``next_sentence:manual`` names its task in front."""
    found: dict[tuple[str, str], list[tuple[list[int], list[int]]]] = {}
    for start in range(0, len(pairs), _CHUNK):
        chunk = pairs[start : start + _CHUNK]
        sources = tokenizer.encode_batch_fast([DEFAULT_PREFIX + pair.source for pair in chunk])
        targets = tokenizer.encode_batch_fast([pair.target for pair in chunk])
        for pair, source, target in zip(chunk, sources, targets, strict=True):
            if len(target.ids) <= MAX_TARGET:
                task, _, origin = pair.origin.rpartition(":")
                ids = source.ids if len(source.ids) <= MAX_SOURCE else [*source.ids[: MAX_SOURCE - 1], source.ids[-1]]
                found.setdefault((task or "summary", origin), []).append((ids, target.ids))
    return {key: sort(rows) for key, rows in sorted(found.items())}


def _sentences(documents: list[Document]) -> list[str]:
    """Choose sentences of running text by a hash of their document."""
    wanted = min(1.0, 2.0 * N_SENTENCES / max(1, len(documents)))
    found: dict[str, None] = {}
    for document in documents:
        if hash_share("sentence" + document.text) < wanted:
            for match in list(_SENTENCE.finditer(document.text.partition("\n")[2]))[:2]:
                text = " ".join(match.group().split())
                if len(text) in SENTENCE_CHARS and text.isascii():
                    found[text] = None
    return sorted(found, key=lambda text: hash_share("order" + text))[:N_SENTENCES]


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _CHUNK):
        yield texts[start : start + _CHUNK]
