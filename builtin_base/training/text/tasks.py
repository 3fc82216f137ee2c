"""Tasks made from text, as FLAN mixes them: each document yields pairs of an order with a text, and the answer.

A pair's origin is ``TASK:KIND``. The answers are pieces of the document itself, so nothing here is labelled by hand.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from builtin_base import docstrings
from builtin_base.docstrings import hash_share
from builtin_base.training.text import fields
from builtin_base.training.text.documents import Document, Pair

SOURCE_CHARS, ANSWER_WORDS = 1_000, range(2, 36)
"""Text of a source, in characters, and words of an answer."""

SHARES = {"next_sentence": 0.35, "first_sentence": 0.30, "title": 0.7, "keywords": 0.20}
"""Share of documents of which pairs are made, by task; together about as many pairs as summary lines."""

MAX_PARAMETERS = 2
"""Pairs made of one docstring's parameters at most."""

N_KEYWORDS, MAX_KEYWORD_PER_1000 = 4, 8
"""Keywords asked for, and in how many documents of a thousand a keyword may occur."""

_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\"'`][.!?])\s+(?=[A-Z`\"'(])")
_WORD = re.compile(r"[a-z][a-z_-]{3,}")
_PROSE = re.compile(r"[A-Za-z][A-Za-z'-]+")
_HEADED = frozenset(("page", "manual", "doc"))


def make_pairs(documents: list[Document]) -> Iterator[Pair]:
    """Make the pairs of all tasks from documents; chance is a function of each document's text."""
    common = _common_words(documents)
    for document in documents:
        rng = random.Random(repr(hash_share("tasks" + document.text)))
        if document.origin == "docstring":
            yield from _field_pairs(document, rng)
        headed = document.origin in ("docstring", "conversation")  # a signature, a question
        text = document.text.partition("\n")[2] if headed else document.text
        yield from _sentence_pairs(document, text, rng)
        if document.origin in _HEADED and rng.random() < SHARES["title"]:
            yield from _title_pairs(document)
        if rng.random() < SHARES["keywords"]:
            yield from _keyword_pairs(document, text, common)


def _sentence_pairs(document: Document, text: str, rng: random.Random) -> Iterator[Pair]:
    """Ask for the sentence that follows a passage, or the one that opens it."""
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text)]
    rich = [s for s in map(_SENTENCE_END.split, paragraphs) if len(s) >= 3 and _is_prose(" ".join(s))]
    if not rich:
        return
    sentences = rng.choice(rich)
    if rng.random() < SHARES["next_sentence"]:
        at = rng.randrange(2, len(sentences))
        passage = " ".join(sentences[max(0, at - rng.randint(2, 5)) : at])
        yield from _pair("next_sentence", document, f"next sentence: {passage[-SOURCE_CHARS:]}", sentences[at])
    if rng.random() < SHARES["first_sentence"]:
        rest = " ".join(sentences[1:8])[:SOURCE_CHARS]
        yield from _pair("first_sentence", document, f"first sentence before: {rest}", sentences[0])


def _title_pairs(document: Document) -> Iterator[Pair]:
    """Ask for the title of a section; it is the first line of a page's section and a line of its own in a manual."""
    for part in re.split(r"\n(?=[A-Z][^\n.]{3,60}\n\n)", document.text)[:4]:
        title, _, body = part.strip().partition("\n\n")
        body = " ".join(body.split())[:SOURCE_CHARS]
        if "\n" not in title and 1 <= len(title.split()) <= 10 and len(body) > 150 and _is_prose(body):
            yield from _pair("title", document, f"title: {body}", re.sub(r"^[\d. ]+", "", title), least=1)


def _keyword_pairs(document: Document, text: str, common: Counter[str]) -> Iterator[Pair]:
    """Ask for the words by which a text differs from others (tf-idf), in the order of the text."""
    n_documents = common["\0"]
    text = " ".join(text.split())[:SOURCE_CHARS]
    counts = Counter(_WORD.findall(text.lower()))
    weights = {
        word: n * math.log(n_documents / common[word])
        for word, n in counts.items()
        if 3 <= common[word] <= n_documents * MAX_KEYWORD_PER_1000 // 1000
    }
    if len(counts) >= 25 and len(weights) >= N_KEYWORDS:
        best = sorted(weights, key=lambda word: (-weights[word], word))[:N_KEYWORDS]
        best.sort(key=text.lower().index)
        yield from _pair("keywords", document, f"keywords: {text}", ", ".join(best))


def _field_pairs(document: Document, rng: random.Random) -> Iterator[Pair]:
    """Ask for what a docstring says of a parameter, of the result, of errors; and back, from these to the summary."""
    signature, _, text = document.text.partition("\n")
    found = fields.parse(text)
    if not (found.parameters or found.returns or found.raises):
        return
    summary, _ = docstrings.split_summary(text)
    head = f"{signature} {summary}"[:SOURCE_CHARS]
    names = list(found.parameters)
    for name in rng.sample(names, min(len(names), MAX_PARAMETERS)):
        meaning = _first_sentence(found.parameters[name])
        if rng.random() < 0.75:
            yield from _pair("parameter", document, f"parameter {name}: {head}", meaning)
        else:
            others = ", ".join(rng.sample(names, len(names)))
            yield from _pair("parameter", document, f"which parameter of {others}: {meaning}", name, least=1)
    if found.returns:
        yield from _pair("returns", document, f"returns: {head}", _first_sentence(found.returns))
    for name, when in list(found.raises.items())[:1]:
        yield from _pair("raises", document, f"raises {name}: {head}", _first_sentence(when))
    if summary and len(found.parameters) >= 1 and rng.random() < 0.5:
        lines = [f"{name}: {_first_sentence(meaning)}" for name, meaning in list(found.parameters.items())[:5]]
        if found.returns:
            lines.append(f"returns: {_first_sentence(found.returns)}")
        name = signature if rng.random() < 0.5 else "function"
        yield from _pair("body", document, f"what does it do? {name} {' '.join(lines)}"[:SOURCE_CHARS], summary)


def _pair(task: str, document: Document, source: str, target: str, least: int = ANSWER_WORDS.start) -> Iterator[Pair]:
    target = " ".join(target.replace("``", "").replace("`", "").split())
    n_words = len(target.split())
    if least <= n_words < ANSWER_WORDS.stop and target.isascii() and _PROSE.search(target):
        yield Pair(f"{task}:{document.origin}", document.group, source.replace("``", "").replace("`", ""), target)


def _first_sentence(text: str) -> str:
    return _SENTENCE_END.split(" ".join(text.split()))[0]


def _is_prose(text: str) -> bool:
    """Tell running text from tables and code: mostly letters, and words of a usual length."""
    letters = sum(c.isalpha() or c == " " for c in text)
    return len(text) > 80 and letters > 0.85 * len(text)


def _common_words(documents: Iterable[Document]) -> Counter[str]:
    """Count in how many documents each word stands; the number of documents is under NUL."""
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(set(_WORD.findall(document.text.lower())))
        counts["\0"] += 1
    return counts
