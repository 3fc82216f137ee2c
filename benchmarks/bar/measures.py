"""A base by itself: summary lines of libraries it never saw, copying, programmatic tasks, and no babbling.

The comparison is with two answers that need no model: the words of the function's own name, and the first sentence
of the text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from rouge_score.rouge_scorer import RougeScorer
from tokenizers import Tokenizer
from transformers import T5ForConditionalGeneration

from benchmarks.bar.score import Row, Score
from braid_common.example import Example
from braid_common.text_form import DEFAULT_PREFIX
from builtin_base import docstrings
from builtin_base.training import architecture, scores
from builtin_base.training.programmatic import exercises, strings
from builtin_base.training.programmatic.values import vocabulary_words

UNSEEN = ("networkx", "sqlalchemy", "numpy", "sympy")
"""Libraries of `packages.EXCLUDED`, which no base has read."""

N_OUTPUTS, N_COPIES, N_EACH = 200, 200, 20
"""Answers looked at for repetition, strings to copy, tasks asked of each kind."""

COPY_PIECES, MAX_ANSWER = 12, 48
"""Longest string to copy, in pieces, and longest answer."""

T = TypeVar("T")
_SCORER = RougeScorer(["rougeL"])
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True, slots=True)
class Report:
    """Measurements of one base; `rows` name each measure, `samples` are (reference, written)."""

    rows: list[Row]
    samples: list[tuple[str, str]]


@torch.no_grad()
def measure(model: T5ForConditionalGeneration, tokenizer: Tokenizer, site: Path | None, n: int) -> Report:
    """Measure a base.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        site: folder that holds the unseen libraries; None searches the interpreter's.
        n: docstrings of each library.
    """
    examples = [example for library in UNSEEN for example in evenly(docstrings.extract(library, root=site), n)]
    sources = [scores.encode_source(tokenizer, example.source) for example in examples]
    written = scores.write(model, tokenizer, sources, MAX_ANSWER)
    rows = [("ROUGE-L of unseen docstrings", _rouge(written, examples))]
    rows.append(("for comparison: the function's name", _rouge([_name(e.source) for e in examples], examples)))
    rows.append(("for comparison: the text's first sentence", _rouge([_first(e.source) for e in examples], examples)))
    for library in UNSEEN:
        own = [(w, e) for w, e in zip(written, examples, strict=True) if e.group == library]
        rows.append((f"ROUGE-L, {library}", _rouge([w for w, _ in own], [e for _, e in own])))
    rows.append(("nats a piece of unseen docstrings", _loss(model, tokenizer, sources, examples)))
    babbling = [float(is_babbling(text)) for text in evenly(written, N_OUTPUTS)]
    rows.append((f"share of {len(babbling)} greedy answers that repeat themselves", Score.of(babbling)))
    drawer = exercises.Drawer(tokenizer, vocabulary_words(tokenizer), [], 4_096, seed=0)
    copied = _copies(model, drawer)
    rows.append((f"copied exactly, {len(copied)} strings of up to {COPY_PIECES} pieces", Score.of(copied)))
    exact = scores.exact_answers(model, drawer, N_EACH)
    for name, share in exact.items():
        n_asked = N_EACH * (len(exact) - 1) if name == "all" else N_EACH
        rows.append((f"exact: {name}", Score(share, 1.96 * math.sqrt(share * (1.0 - share) / n_asked))))
    samples = list(zip((e.target for e in examples), written, strict=True))
    return Report(rows, evenly(samples, 8))


def is_babbling(text: str) -> bool:
    """Tell degenerate repetition: a run of one to four words three times in a row, or any three words three times."""
    words = text.lower().split()
    for size in range(1, 5):
        for at in range(len(words) - 3 * size + 1):
            run = words[at : at + size]
            if run == words[at + size : at + 2 * size] == words[at + 2 * size : at + 3 * size]:
                return True
    counts = Counter(zip(words, words[1:], words[2:], strict=False))
    return bool(counts) and max(counts.values()) >= 3


def evenly(items: Sequence[T], n: int) -> list[T]:
    """Take `n` items at even distances, all where there are fewer."""
    return [items[i * len(items) // n] for i in range(n)] if len(items) > n else list(items)


def rouge_l(written: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, 0..1 (Lin 2004, no stemming)."""
    return float(_SCORER.score(reference, written)["rougeL"].fmeasure)


def _rouge(written: Sequence[str], examples: Sequence[Example]) -> Score:
    return Score.of([rouge_l(text, example.target) for text, example in zip(written, examples, strict=True)])


def _loss(
    model: T5ForConditionalGeneration, tokenizer: Tokenizer, sources: list[list[int]], examples: list[Example]
) -> Score:
    """Average the loss of each reference, in nats a piece."""
    values = []
    for ids, example in zip(sources, examples, strict=True):
        target = torch.tensor([tokenizer.encode(example.target).ids])
        values.append(float(architecture.token_losses(model, torch.tensor([ids]), target)[0].mean()))
    return Score.of(values)


def _copies(model: T5ForConditionalGeneration, drawer: exercises.Drawer) -> list[float]:
    values = drawer.values("bar", "copy")
    asked: dict[str, str] = {}
    while len(asked) < N_COPIES:
        target = " ".join(strings.copy(values)[1].split())
        if len(drawer.tokenizer.encode(target).ids) - 1 <= COPY_PIECES:
            asked[f"copy: {target}"] = target
    ids = [drawer.tokenizer.encode(DEFAULT_PREFIX + source).ids for source in asked]
    written = scores.write(model, drawer.tokenizer, ids, MAX_ANSWER)
    return [float(text == target) for text, target in zip(written, asked.values(), strict=True)]


def _name(source: str) -> str:
    return " ".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", source.partition("(")[0]))


def _first(source: str) -> str:
    return _SENTENCE_END.split(source.partition("\n")[2], maxsplit=1)[0]
