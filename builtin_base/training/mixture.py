"""Batches for training the builtin base: span corruption of running text, and writing the summary line of a text.

A batch is a pure function of (seed, step), so a run that resumes sees what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from braid_common.text_form import DEFAULT_PREFIX
from builtin_base.docstrings import hash_share
from builtin_base.training.sources import Document, Harvest, Pair
from builtin_base.training.tokenizer import EOS_ID, PAD_ID, VOCAB_SIZE, sentinel_id

MAX_SOURCE, MAX_TARGET = 192, 48
"""Longest source and target, in tokens."""

SHORT_SOURCE, SHORT_SHARE = 96, 0.7
"""Source length, in tokens, to which most summary batches are cut, and how often: the first sentences say the most, and
half the source is half the encoder's time for the same pieces to learn from."""

HELD_OUT_SHARE = 0.01
"""Share of documents and of pairs that no step trains on."""

DOCUMENT_WEIGHTS = {"docstring": 0.45, "comment": 0.07, "debian": 0.16, "manual": 0.20, "readme": 0.06, "doc": 0.06}
"""How often each kind of text is drawn, whatever its size: the base is for docstrings first, for English second."""

PAIR_WEIGHTS = {"docstring": 0.80, "debian": 0.14, "manual": 0.06}
"""The same for pairs of a text and its summary."""

_BUCKETS = (48, 80, 112, 144, MAX_SOURCE)
"""Upper ends of the source lengths that are batched together, in tokens."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Denoiser:
    """One way to corrupt running text: rows of `row` tokens, of which `noise_share` go in spans of mean `mean_span`."""

    row: int
    noise_share: float
    mean_span: float

    @property
    def n_noise(self) -> int:
        """Tokens of a row that are to be restored."""
        return max(1, round(self.row * self.noise_share))

    @property
    def n_spans(self) -> int:
        """Spans in which they lie."""
        return max(1, round(self.n_noise / self.mean_span))

    @property
    def size(self) -> int:
        """Tokens of a row's source and target together."""
        return self.row + 2 * self.n_spans + 2


STANDARD = Denoiser(210, 0.15, 3.0)
"""T5's own objective (arXiv 1910.10683, section 3.1.4): 190 tokens of source, 44 of target. Held-out scores use it."""

DENOISERS = ((STANDARD, 0.4), (Denoiser(128, 0.5, 8.0), 0.3), (Denoiser(128, 0.5, 64.0), 0.3))
"""Training draws one of these per step, as UL2 does (arXiv 2205.05131). The denser two, one of them continuing a text
from its first half, give three times as many pieces to learn from for the same arithmetic. With T5's own alone, a run
on two cores was still predicting word frequencies after 400 steps."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenized side (training or held-out) of the corpus.

    Attributes:
        streams: origin → all its documents' ids one after another, eos between them, uint16.
        pairs: origin → bucket (upper end of source length) → list of (source ids, target ids), uint16, eos included.
    """

    streams: dict[str, npt.NDArray[np.uint16]]
    pairs: dict[str, dict[int, list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]]]]


def tokenize(corpus: Harvest, tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    """Tokenize a corpus into (training, held-out), divided by a hash of each text."""
    sides = []
    for held_out in (False, True):
        documents = [d for d in corpus.documents if _is_held_out(d.text) == held_out]
        pairs = [p for p in corpus.pairs if _is_held_out(f"{p.source}\0{p.target}") == held_out]
        sides.append(Tokens(_streams(documents, tokenizer), _bucketed(pairs, tokenizer)))
    return sides[0], sides[1]


class _Plain(msgspec.Struct):
    """A `Tokens` whose arrays are raw bytes."""

    streams: dict[str, bytes]
    pairs: dict[str, dict[int, list[tuple[bytes, bytes]]]]


def encode_sides(sides: tuple[Tokens, Tokens]) -> bytes:
    """Both sides as msgpack, ids little-endian."""
    return msgspec.msgpack.encode(
        [
            _Plain(
                {origin: ids.astype("<u2").tobytes() for origin, ids in side.streams.items()},
                {
                    origin: {
                        end: [(s.astype("<u2").tobytes(), t.astype("<u2").tobytes()) for s, t in rows]
                        for end, rows in by_end.items()
                    }
                    for origin, by_end in side.pairs.items()
                },
            )
            for side in sides
        ]
    )


def decode_sides(data: bytes) -> tuple[Tokens, Tokens]:
    """Read the sides that `encode_sides` wrote. Raises msgspec.DecodeError on damage."""
    train, held_out = msgspec.msgpack.decode(data, type=tuple[_Plain, _Plain])
    return _tokens(train), _tokens(held_out)


def _tokens(plain: _Plain) -> Tokens:
    def ids(data: bytes) -> npt.NDArray[np.uint16]:
        return np.frombuffer(data, "<u2").astype(np.uint16)

    return Tokens(
        {origin: ids(data) for origin, data in plain.streams.items()},
        {
            origin: {end: [(ids(s), ids(t)) for s, t in rows] for end, rows in by_end.items()}
            for origin, by_end in plain.pairs.items()
        },
    )


def draw_denoiser(rng: np.random.Generator) -> Denoiser:
    """Choose how the next batch of running text is corrupted."""
    return DENOISERS[int(rng.choice(len(DENOISERS), p=[share for _, share in DENOISERS]))][0]


def span_batch(
    tokens: Tokens, n_tokens: int, rng: np.random.Generator, denoiser: Denoiser = STANDARD
) -> tuple[Ids, Ids]:
    """Draw a batch of corrupted text of about `n_tokens` tokens, without padding: (source, target) ids."""
    origins = [o for o in DOCUMENT_WEIGHTS if o in tokens.streams and len(tokens.streams[o]) > denoiser.row]
    chances = np.array([DOCUMENT_WEIGHTS[o] for o in origins])
    rows = []
    n_rows = max(1, n_tokens // denoiser.size)
    for choice in rng.choice(len(origins), size=n_rows, p=chances / chances.sum()):
        stream = tokens.streams[origins[choice]]
        start = int(rng.integers(len(stream) - denoiser.row))
        rows.append(corrupt_spans(stream[start : start + denoiser.row].astype(np.int64), denoiser, rng))
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])


def pair_batch(
    tokens: Tokens, n_tokens: int, rng: np.random.Generator, max_source: int = MAX_SOURCE
) -> tuple[Ids, Ids]:
    """Draw a summary-writing batch of about `n_tokens` tokens, sources cut to `max_source`, padded to the longest."""
    keys = sorted((origin, end) for origin, by_end in tokens.pairs.items() for end in by_end)
    totals = {o: sum(len(rows) * end for end, rows in tokens.pairs[o].items()) for o in tokens.pairs}
    chances = np.array([PAIR_WEIGHTS[o] * len(tokens.pairs[o][end]) * end / totals[o] for o, end in keys])
    origin, end = keys[int(rng.choice(len(keys), p=chances / chances.sum()))]
    rows = tokens.pairs[origin][end]
    n_rows = max(1, n_tokens // (min(end, max_source) + 24))
    chosen = [rows[i] for i in rng.integers(len(rows), size=n_rows)]
    return pad([_cut(row[0], max_source) for row in chosen]), pad([row[1] for row in chosen])


def corrupt_spans(
    ids: Ids, denoiser: Denoiser, rng: np.random.Generator, vocab_size: int = VOCAB_SIZE
) -> tuple[Ids, Ids]:
    """Replace random spans by sentinels; the target names each sentinel and what it stands for.

    Args:
        ids: (denoiser.row,) token ids.
        denoiser: how much to replace, in spans of what length.
        rng: where the spans come from.
        vocab_size: decides the sentinels' ids.

    Returns:
        (source, target), both ending in eos; their lengths depend on the denoiser alone.
    """
    noise = _random_lengths(denoiser.n_noise, denoiser.n_spans, rng)
    kept = _random_lengths(denoiser.row - denoiser.n_noise, denoiser.n_spans, rng)
    source: list[Ids] = []
    target: list[Ids] = []
    at = 0
    for index, (n_kept, n_masked) in enumerate(zip(kept, noise, strict=True)):
        sentinel = np.array([sentinel_id(index, vocab_size)])
        source += [ids[at : at + n_kept], sentinel]
        target += [sentinel, ids[at + n_kept : at + n_kept + n_masked]]
        at += n_kept + n_masked
    end = np.array([EOS_ID])
    return np.concatenate([*source, end]), np.concatenate([*target, end])


def pad(rows: list[npt.NDArray[np.uint16]]) -> Ids:
    """Stack rows of unequal length, padded on the right to the longest."""
    padded = np.full((len(rows), max(len(row) for row in rows)), PAD_ID, dtype=np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def encode_source(tokenizer: Tokenizer, source: str, max_tokens: int = MAX_SOURCE) -> list[int]:
    """Tokenize a source as the model expects it: prefix in front, eos at the end even where it was cut."""
    ids: list[int] = tokenizer.encode(DEFAULT_PREFIX + source).ids
    return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], EOS_ID]


def _cut(ids: npt.NDArray[np.uint16], max_tokens: int) -> npt.NDArray[np.uint16]:
    return ids if len(ids) <= max_tokens else np.append(ids[: max_tokens - 1], np.uint16(EOS_ID))


def _random_lengths(total: int, n_parts: int, rng: np.random.Generator) -> list[int]:
    """Cut `total` into `n_parts` random parts of at least 1."""
    cuts = np.sort(rng.choice(total - 1, size=n_parts - 1, replace=False)) + 1
    return [int(n) for n in np.diff(np.concatenate([[0], cuts, [total]]))]


def _is_held_out(text: str) -> bool:
    return hash_share(text) < HELD_OUT_SHARE


def _streams(documents: list[Document], tokenizer: Tokenizer) -> dict[str, npt.NDArray[np.uint16]]:
    by_origin: dict[str, list[str]] = {}
    for document in sorted(documents, key=lambda d: hash_share(d.group + d.text)):  # neighbours in a row are unrelated
        by_origin.setdefault(document.origin, []).append(document.text)
    streams = {}
    for origin, texts in by_origin.items():
        encodings = (e for batch in _batches(texts) for e in tokenizer.encode_batch_fast(batch))
        streams[origin] = np.concatenate([np.array(e.ids, dtype=np.uint16) for e in encodings])
    return streams


def _bucketed(
    pairs: list[Pair], tokenizer: Tokenizer
) -> dict[str, dict[int, list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]]]]:
    found: dict[str, dict[int, list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]]]] = {}
    for batch in (pairs[i : i + 4096] for i in range(0, len(pairs), 4096)):
        sources = tokenizer.encode_batch_fast([DEFAULT_PREFIX + p.source for p in batch])
        targets = tokenizer.encode_batch_fast([p.target for p in batch])
        for pair, source, target in zip(batch, sources, targets, strict=True):
            if len(target.ids) > MAX_TARGET:
                continue
            ids = source.ids if len(source.ids) <= MAX_SOURCE else [*source.ids[: MAX_SOURCE - 1], EOS_ID]
            end = next(bucket for bucket in _BUCKETS if len(ids) <= bucket)
            row = (np.array(ids, dtype=np.uint16), np.array(target.ids, dtype=np.uint16))
            found.setdefault(pair.origin, {}).setdefault(end, []).append(row)
    return found


def _batches(texts: list[str]) -> list[list[str]]:
    return [texts[i : i + 4096] for i in range(0, len(texts), 4096)]
