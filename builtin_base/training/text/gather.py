"""Gather the corpus: packages, manual pages, Debian's texts, documentation pages, published sets, and tasks of these.

Nothing that a test asks may be in it: paragraphs that repeat a tested text go, and pairs that do; so do the libraries
that `packages.EXCLUDED` names, and near-duplicates within the corpus.
"""

from __future__ import annotations

import itertools
import multiprocessing
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from builtin_base import docstrings
from builtin_base.training.text.code import read_code
from builtin_base.training.text.debian import read_debian, read_texts
from builtin_base.training.text.documents import Document, Harvest, Pair
from builtin_base.training.text.manuals import manual_batches, read_manuals
from builtin_base.training.text.overlap import MAX_TESTED_SHARE, Reserved, Seen
from builtin_base.training.text.packages import EXCLUDED, packages_of, read_package, read_readmes
from builtin_base.training.text.pages import read_pages
from builtin_base.training.text.published import read_examples, reserved_texts
from builtin_base.training.text.tasks import make_pairs

MIN_DOCUMENT_CHARS = 80
"""Documents shorter than this hold too little to restore a span from, in characters."""

MAX_SAME_TARGET = 3
"""How often one answer may occur within a task."""

MAX_CONVERSATION_SHARE = 0.25
"""At most this share of the documents' text comes from training parts of published sets."""

_COMMON = frozenset(("the", "of", "and", "to", "a", "is", "in", "that", "for", "it", "with", "as", "be", "you", "or"))
"""Words of which English running text holds at least one in twelve."""


def gather(
    sites: Sequence[Path],
    excluded_sites: Sequence[Path],
    example_sets: Sequence[Path],
    tested_sets: Sequence[Path],
    n_workers: int = 2,
) -> tuple[Harvest, dict[str, Any]]:
    """Collect, clean and deduplicate the corpus.

    Args:
        sites: folders that hold Python packages, beside the standard library.
        excluded_sites: folders where installed copies of the excluded libraries lie, whose texts are dropped.
        example_sets: training parts of published sets, ``{"source", "target"}`` a line.
        tested_sets: sets of which no text may be in the corpus.
        n_workers: processes that parse in parallel.

    Returns:
        (corpus, report); pairs of further tasks have origins ``TASK:KIND``.
    """
    refused = list(excluded_docstrings([*sites, *excluded_sites]))
    tested = Reserved(itertools.chain((text for text, _ in refused), reserved_texts(tested_sets)))
    refused_targets = {answer_key(summary) for _, summary in refused}
    jobs = packages_of(sites)
    with multiprocessing.Pool(n_workers) as pool:
        harvests = pool.imap(read_package, jobs, chunksize=1)
        manuals = pool.imap(read_manuals, manual_batches(), chunksize=1)
        code = pool.imap(read_code, jobs, chunksize=1)
        texts = itertools.chain(read_readmes(sites), read_texts(), read_pages())
        examples = [read_examples(path) for path in example_sets]
        rows = itertools.chain(harvests, manuals, [read_debian(), Harvest(list(texts), [])], examples)
        documents, pairs, dropped = clean(rows, tested)
        pairs += list(itertools.chain.from_iterable(code))
    documents = _limited(documents)
    pairs += make_pairs(documents)
    kept = unrepeated(pairs, tested, refused_targets)
    report = _report(documents, kept, dropped, len(tested))
    return Harvest(documents, kept), report


def clean(harvests: Iterable[Harvest], tested: Reserved) -> tuple[list[Document], list[Pair], Counter[str]]:
    """Keep what is new, English and not tested; count what was dropped."""
    documents: list[Document] = []
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    paragraphs: set[int] = set()
    seen = Seen()
    for harvest in harvests:
        for document in harvest.documents:
            text = tested.without(_new_paragraphs(document.text, paragraphs))
            if len(text) < MIN_DOCUMENT_CHARS or not _is_english(text, document.origin):
                dropped["short, repeated, tested or not English"] += 1
            elif seen.is_repeated(text):
                dropped["nearly repeated"] += 1
            else:
                documents.append(Document(document.origin, document.group, text))
        pairs += harvest.pairs
    return documents, pairs, dropped


def _is_english(text: str, origin: str) -> bool:
    """Tell English from other languages and from tables; a docstring is often too short to show it."""
    if sum(map(str.isascii, text)) < 0.95 * len(text):
        return False
    words = re.findall(r"[A-Za-z]+", text)
    return origin in ("docstring", "comment") or sum(w.lower() in _COMMON for w in words) >= 0.08 * max(1, len(words))


def _new_paragraphs(text: str, seen: set[int]) -> str:
    """Drop the long paragraphs that an earlier document had, e.g. parameter lists shared by a family of functions."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        key = hash(paragraph)
        if len(paragraph) < 60 or key not in seen:
            kept.append(paragraph)
            seen.add(key)
    return "\n\n".join(kept)


def unrepeated(pairs: Iterable[Pair], tested: Reserved, refused_targets: set[int]) -> list[Pair]:
    """Keep pairs with a new source and an answer that neither a test asks nor the task has had too often."""
    kept: list[Pair] = []
    sources: set[int] = set()
    targets: Counter[tuple[str, int]] = Counter()
    for pair in pairs:
        task = pair.origin.partition(":")[0]
        source, target = hash((task, pair.source)), answer_key(pair.target)
        if source in sources or target in refused_targets or targets[task, target] >= MAX_SAME_TARGET:
            continue
        if tested.share(f"{pair.source}\n{pair.target}") > MAX_TESTED_SHARE:
            continue
        sources.add(source)
        targets[task, target] += 1
        kept.append(pair)
    return kept


def _limited(documents: list[Document]) -> list[Document]:
    """Keep of the published sets' texts no more than their share."""
    total = sum(len(d.text) for d in documents if d.origin != "conversation")
    room = total * MAX_CONVERSATION_SHARE / (1.0 - MAX_CONVERSATION_SHARE)
    kept = []
    for document in documents:
        room -= len(document.text) if document.origin == "conversation" else 0
        if document.origin != "conversation" or room >= 0:
            kept.append(document)
    return kept


def excluded_docstrings(sites: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield (docstring, summary) of the excluded libraries."""
    for library, site in itertools.product(sorted(EXCLUDED), dict.fromkeys(sites)):
        for path in sorted((site / library).rglob("*.py")):
            for docstring in docstrings.read_docstrings(path):
                yield docstring.text, docstrings.split_summary(docstring.text)[0]


def answer_key(text: str) -> int:
    """Hash an answer without its case, its spaces and its last full stop."""
    return hash(" ".join(text.split()).rstrip(".").lower())


def _report(documents: list[Document], pairs: list[Pair], dropped: Counter[str], n_tested: int) -> dict[str, Any]:
    document_bytes: Counter[str] = Counter()
    for document in documents:
        document_bytes[document.origin] += len(document.text)
    return {
        "documents": dict(Counter(document.origin for document in documents)),
        "document_bytes": dict(document_bytes),
        "dropped": dict(dropped),
        "pairs": dict(Counter(pair.origin for pair in pairs)),
        "packages": sorted({pair.group for pair in pairs if pair.origin == "docstring"}),
        "excluded_libraries": sorted(EXCLUDED),
        "tested_shingles": n_tested,
    }
