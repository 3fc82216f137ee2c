"""The programmatic tasks and how often each is drawn: what small models lack, in any amount, with one right answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import numpy as np
from tokenizers import Tokenizer

from braid_common.text_form import DEFAULT_PREFIX
from builtin_base.training.programmatic import dialogues, records, requests, strings
from builtin_base.training.programmatic.values import Values
from builtin_base.training.text.rows import Ids

Exercise = Callable[[Values], tuple[str, str]]

EXERCISES: Mapping[str, tuple[Exercise, float]] = {
    "copy": (strings.copy, 3.0),
    "copy_sentence": (strings.copy_sentence, 1.0),
    "copy_quoted": (strings.copy_quoted, 1.5),
    "copy_bracketed": (strings.copy_bracketed, 1.0),
    "pick_line": (strings.pick_line, 1.0),
    "line_with": (strings.line_with, 1.0),
    "word_after": (strings.word_after, 1.0),
    "rest_after": (strings.rest_after, 1.0),
    "reverse": (strings.reverse, 0.5),
    "order": (strings.order, 0.5),
    "extreme": (strings.extreme, 0.5),
    "count": (strings.count, 0.5),
    "remove": (strings.remove, 0.5),
    "field": (records.field, 1.5),
    "key_of": (records.key_of, 0.5),
    "item_field": (records.item_field, 1.5),
    "nested_field": (records.nested_field, 0.5),
    "fact": (records.fact, 1.0),
    "to_json": (records.to_json, 1.0),
    "from_json": (records.from_json, 1.0),
    "call": (records.call, 2.0),
    "next_step": (dialogues.next_step, 3.0),
    "last_mention": (dialogues.last_mention, 1.5),
    "who_said": (dialogues.who_said, 1.0),
    "answer_from": (dialogues.answer_from, 1.0),
    "look_or_take": (requests.look_or_take, 6.0),
}
"""Tasks by name, with the share of examples that each gets relative to the others."""

MAX_SOURCE, MAX_TARGET = 320, 64
"""Longest source and target, in tokens; longer ones are dropped."""

POOL = 16
"""Batches drawn together."""

_NAMES = tuple(EXERCISES)
_CHANCES = tuple(share for _, share in EXERCISES.values())


def draw(values: Values, name: str | None = None) -> tuple[str, str, str]:
    """Draw an example: (name of the task, source, target), both on one line as the tokenizer sees them."""
    name = name or values.random.choices(_NAMES, _CHANCES)[0]
    source, target = EXERCISES[name][0](values)
    return name, " ".join(source.split()), " ".join(target.split())


class Drawer:
    """Draws tokenised batches of programmatic tasks, each of about `n_tokens` tokens with the padding."""

    def __init__(self, tokenizer: Tokenizer, words: list[str], sentences: list[str], n_tokens: int, seed: int) -> None:
        """Keep what values are made of."""
        self.tokenizer = tokenizer
        self.words = words
        self.sentences = sentences
        self.n_tokens = n_tokens
        self.seed = seed
        self._pool: tuple[int, list[list[tuple[Ids, Ids]]]] = (-1, [])

    def values(self, *seed: object) -> Values:
        """Make the source of random values for a seed."""
        return Values(random.Random(repr((self.seed, *seed))), self.words, self.sentences)

    def batch(self, index: int) -> list[tuple[Ids, Ids]]:
        """Draw batch number `index`, a function of the seed and the index.

        `POOL` batches are drawn together and divided by length, since half of a batch of mixed lengths is padding.
        """
        number, place = divmod(index, POOL)
        if self._pool[0] != number:
            self._pool = (number, self._draw_pool(number))
        return self._pool[1][place]

    def _draw_pool(self, number: int) -> list[list[tuple[Ids, Ids]]]:
        values = self.values(number)
        rows: list[tuple[Ids, Ids]] = []
        size = 0
        while size < POOL * self.n_tokens:
            drawn = [draw(values)[1:] for _ in range(64)]
            sources = self.tokenizer.encode_batch_fast([DEFAULT_PREFIX + source for source, _ in drawn])
            targets = self.tokenizer.encode_batch_fast([target for _, target in drawn])
            for source, target in zip(sources, targets, strict=True):
                if len(source.ids) <= MAX_SOURCE and len(target.ids) <= MAX_TARGET:
                    rows.append((np.array(source.ids, dtype=np.uint16), np.array(target.ids, dtype=np.uint16)))
                    size += len(source.ids) + len(target.ids)
        rows.sort(key=lambda row: len(row[0]))
        batches = _divide(rows, POOL)
        values.random.shuffle(batches)
        return batches


def _divide(rows: list[tuple[Ids, Ids]], n_parts: int) -> list[list[tuple[Ids, Ids]]]:
    """Cut sorted rows into parts of about equal numbers of tokens, none empty."""
    sizes = np.cumsum([len(source) + len(target) for source, target in rows])
    parts = np.searchsorted(sizes, sizes[-1] * np.arange(1, n_parts) / n_parts)
    return [rows[start:end] for start, end in zip([0, *parts], [*parts, len(rows)], strict=True)]
