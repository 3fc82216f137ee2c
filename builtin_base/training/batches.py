"""The batches of one step, a function of (seed, step): spans to restore, tasks made from text, programmatic tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from builtin_base.training.mixture import STABLE, Mixture
from builtin_base.training.programmatic.exercises import Drawer
from builtin_base.training.programmatic.values import vocabulary_words
from builtin_base.training.spans import STANDARD, Denoiser, corrupt_spans, draw_denoiser
from builtin_base.training.text.rows import Ids, Text, read
from builtin_base.training.tokenizer import EOS_ID, PAD_ID

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

STREAM_WEIGHTS: Mapping[str, float] = {
    "docstring": 0.38,
    "comment": 0.06,
    "debian": 0.10,
    "manual": 0.14,
    "readme": 0.05,
    "doc": 0.05,
    "page": 0.14,
    "conversation": 0.08,
}
"""How often each kind of running text is drawn, whatever its size: docstrings first, English second."""

ORIGIN_WEIGHTS: Mapping[str, float] = {"docstring": 0.75, "debian": 0.10, "manual": 0.05}
"""How often each origin is drawn within a task; others count `OTHER_ORIGIN`."""

OTHER_ORIGIN = 0.05

_NEIGHBOURS = 2_048
"""Pairs of like length from which one batch is drawn."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The text and the made-up tasks that batches come from.

    Attributes:
        text: the training side.
        held_out: the side that no step trains on.
        drawer: of programmatic tasks.
    """

    text: Text
    held_out: Text
    drawer: Drawer


def open_sources(folder: Path, tokenizer: Tokenizer, n_tokens: int, seed: int) -> Sources:
    """Read the tokenised corpus that `tokenised.write_text` wrote."""
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
    drawer = Drawer(tokenizer, vocabulary_words(tokenizer), sentences, n_tokens, seed)
    return Sources(read(folder / "train.safetensors"), read(folder / "held_out.safetensors"), drawer)


def draw(sources: Sources, n_tokens: int, seed: int, step: int, mixture: Mixture = STABLE) -> dict[str, Batch]:
    """Draw the batches of a step, each of about `n_tokens` tokens, in the numbers that the mixture names.

    Returns:
        name → (source ids, target ids), padded with 0; a batch from text has the name of its task, and a second batch
        of a kind ends in ``_2``.
    """
    rng = np.random.default_rng([seed, step])
    pairs = [draw_pairs(sources.text, n_tokens, rng, mixture=mixture) for _ in range(mixture.n_text)]
    spans = [draw_spans(sources.text, n_tokens, rng, draw_denoiser(rng)) for _ in range(mixture.n_span)]
    drawn: dict[str, Batch] = {}
    for name, batch in (*(("span", span) for span in spans), *pairs):
        drawn[f"{name}_2" if name in drawn else name] = batch
    return drawn | {"programmatic": pad_batch(sources.drawer.batch(step))}


def draw_spans(text: Text, n_tokens: int, rng: np.random.Generator, denoiser: Denoiser = STANDARD) -> Batch:
    """Draw a batch of corrupted running text of about `n_tokens` tokens, without padding."""
    kinds = [kind for kind in STREAM_WEIGHTS if len(text.streams.get(kind, ())) > denoiser.row]
    chances = np.array([STREAM_WEIGHTS[kind] for kind in kinds])
    rows = []
    for choice in rng.choice(len(kinds), size=max(1, n_tokens // denoiser.size), p=chances / chances.sum()):
        stream = text.streams[kinds[choice]]
        start = int(rng.integers(len(stream) - denoiser.row))
        rows.append(corrupt_spans(stream[start : start + denoiser.row].astype(np.int64), denoiser, rng))
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])


def draw_pairs(
    text: Text, n_tokens: int, rng: np.random.Generator, only: str | None = None, mixture: Mixture = STABLE
) -> tuple[str, Batch]:
    """Draw a batch of one task made from text, of about `n_tokens` tokens: (task, batch).

    Sources are of like length, and cut to a length that is drawn too.
    """
    tasks = [only] if only else [task for task in mixture.tasks if any(key[0] == task for key in text.pairs)]
    task = tasks[_choose([mixture.tasks[task] for task in tasks], rng)]
    origins = [origin for name, origin in text.pairs if name == task]
    pairs = text.pairs[task, origins[_choose([ORIGIN_WEIGHTS.get(o, OTHER_ORIGIN) for o in origins], rng)]]
    longest = mixture.source_lengths[_choose([share for _, share in mixture.source_lengths], rng)][0]
    start = int(rng.integers(len(pairs)))
    first, last = max(0, start - _NEIGHBOURS // 2), min(len(pairs), start + _NEIGHBOURS // 2)
    size = min(len(pairs.sources[start]), longest) + 24
    chosen = rng.integers(first, last, size=max(1, n_tokens // size))
    return task, pad_batch([(_cut(pairs.sources[int(i)], longest), pairs.targets[int(i)]) for i in chosen])


def pad_batch(rows: list[tuple[Ids, Ids]]) -> Batch:
    """Stack (source, target) rows, each side padded on the right to its longest."""
    return _pad([source for source, _ in rows]), _pad([target for _, target in rows])


def n_real_tokens(drawn: Mapping[str, Batch]) -> int:
    """Count the tokens of batches, sources and targets, that are not padding."""
    return sum(int(np.count_nonzero(ids)) for batch in drawn.values() for ids in batch)


def _pad(rows: list[Ids]) -> npt.NDArray[np.int64]:
    padded = np.full((len(rows), max(len(row) for row in rows)), PAD_ID, dtype=np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def _cut(ids: Ids, longest: int) -> Ids:
    return ids if len(ids) <= longest else np.append(ids[: longest - 1], np.uint16(EOS_ID))


def _choose(weights: list[float], rng: np.random.Generator) -> int:
    chances = np.array(weights)
    return int(rng.choice(len(weights), p=chances / chances.sum()))
