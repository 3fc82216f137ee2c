"""The load carried to a GPU: a sample of the tokenised corpus in as few bytes as possible, and the run's weights.

Token ids are 16 bits wide and compress by LZMA to some 0.7 bytes each when it is told of their width.
"""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from builtin_base.training.batches import ORIGIN_WEIGHTS, OTHER_ORIGIN, STREAM_WEIGHTS
from builtin_base.training.gpu.sizes import CARRIED
from builtin_base.training.mixture import STABLE
from builtin_base.training.text.rows import Array, Pairs, Text, arrays_of, pack, read, text_of, write
from builtin_base.training.tokenizer import TOKENIZER_FILES

MAX_BYTES = 48 << 20
"""All that is carried; with the repository's own 14 MiB it stays below the 64 MiB that a lent machine takes."""

HELD_OUT_TOKENS = 1_000_000
"""Tokens kept of the held-out side, at most: an evaluation reads a tenth of them."""

SPAN_SHARE = STABLE.n_span / (STABLE.n_span + STABLE.n_text)
"""Share of running text in what a step draws of the corpus."""

_BYTES_PER_TOKEN = 0.69
"""First guess of the compression (0.686 of 47 million tokens by the mixture), replaced by what it turns out."""

_ENOUGH, _MAX_TRIES = 0.97, 4
"""Share of the room that is taken for full, and tries to reach it: a try takes a processor second a million tokens."""

_LZMA = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 3, "lp": 1, "pb": 1, "dict_size": 64 << 20}]
"""Values of two bytes, and a dictionary in which a pair finds the document that it was made of."""

_SIDES = ("held_out", "train")
Name = TypeVar("Name")


def pack_for_gpu(run: Path, out: Path, max_bytes: int = MAX_BYTES) -> dict[str, float]:
    """Write what a GPU needs of a run: ``OUT/small``, the packed weights, and ``OUT/text``, a sample of the corpus.

    Args:
        run: a run's folder with tokenised text, and an export of its checkpoint.
        out: the folder to carry; replaced.
        max_bytes: of all its files.

    Returns:
        Numbers for people: tokens and bytes.

    Raises:
        ValueError: if the weights alone leave no room for text.
    """
    shutil.rmtree(out, ignore_errors=True)
    (out / "text").mkdir(parents=True)
    shutil.copytree(run / "export" / "packed", out / CARRIED)
    for name in ("sentences.json", "corpus.json"):
        (out / "text" / f"{name}.xz").write_bytes(lzma.compress((run / "text" / name).read_bytes()))
    held_out = sample(read(run / "text" / "held_out.safetensors"), HELD_OUT_TOKENS)
    (out / "text" / "held_out.xz").write_bytes(compress(held_out))
    room = max_bytes - _bytes_of(out)
    if room <= 0:
        raise ValueError(f"the weights and the held-out text leave no room of {max_bytes:,} bytes: give more")
    train, data = _fitting(read(run / "text" / "train.safetensors"), room)
    (out / "text" / "train.xz").write_bytes(data)
    return {"tokens": n_tokens(train), "bytes": _bytes_of(out), "bytes_per_token": len(data) / n_tokens(train)}


def unpack(carried: Path, folder: Path) -> None:
    """Make of what was carried a run's folder: its text, and the tokenizer."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(carried / CARRIED / name, folder / name)
    for name in ("sentences.json", "corpus.json"):
        (folder / "text" / name).write_bytes(lzma.decompress((carried / "text" / f"{name}.xz").read_bytes()))
    for side in _SIDES:
        write(folder / "text" / f"{side}.safetensors", decompress((carried / "text" / f"{side}.xz").read_bytes()))


def sample(text: Text, total_tokens: int) -> Text:
    """Choose a part of a side of the corpus, of each kind as much as the mixture draws it.

    Documents lie in a random order, so the first ones are a sample; of pairs, which lie by length, every n-th is kept.
    A kind that has less than its share gives all, and the others share what is left.
    """
    streams = allot(
        SPAN_SHARE * total_tokens,
        {kind: STREAM_WEIGHTS.get(kind, 0.0) for kind in text.streams},
        {kind: len(ids) for kind, ids in text.streams.items()},
    )
    pairs = allot(
        total_tokens - sum(streams.values()),
        _pair_weights(text),
        {key: len(pairs.sources.ids) + len(pairs.targets.ids) for key, pairs in text.pairs.items()},
    )
    return Text(
        {kind: text.streams[kind][: round(size)] for kind, size in streams.items() if round(size)},
        {key: part for key, size in pairs.items() if len(part := _every(text.pairs[key], size))},
    )


def allot(total: float, weights: Mapping[Name, float], most: Mapping[Name, float]) -> dict[Name, float]:
    """Divide a total by weights, giving nobody more than it can take.

    Args:
        total: what there is.
        weights: of each name; one that weighs nothing gets nothing.
        most: what each name can take.

    Returns:
        The parts by name; they add up to `total` unless all are full.
    """
    parts: dict[Name, float] = {}
    hungry = {name: weight for name, weight in weights.items() if weight > 0}
    while hungry:
        unit = total / sum(hungry.values())
        full = [name for name, weight in hungry.items() if most[name] <= unit * weight]
        for name in full:
            del hungry[name]
            parts[name] = most[name]
            total -= most[name]
        if not full:
            return parts | {name: unit * weight for name, weight in hungry.items()}
    return parts


def compress(text: Text) -> bytes:
    """Compress a side of the corpus; rows keep their lengths, of two bytes, instead of their ends, of eight."""
    arrays = arrays_of(text)
    narrow = {name: _lengths(array) if name.endswith("/ends") else array for name, array in arrays.items()}
    return lzma.compress(save(narrow), format=lzma.FORMAT_XZ, filters=_LZMA)


def decompress(data: bytes) -> Text:
    """Restore what `compress` gave."""
    arrays = load(lzma.decompress(data))
    return text_of(
        {name: np.cumsum(value, dtype=np.int64) if name.endswith("/ends") else value for name, value in arrays.items()}
    )


def n_tokens(text: Text) -> int:
    """Count the tokens of a side."""
    return sum(len(array) for name, array in arrays_of(text).items() if not name.endswith("/ends"))


def _fitting(text: Text, room: int) -> tuple[Text, bytes]:
    """Sample and compress as much of a side as fits into `room` bytes: (sample, compressed)."""
    wanted, n_tries = room / _BYTES_PER_TOKEN, 0
    while True:
        part, n_tries = sample(text, round(wanted)), n_tries + 1
        data = compress(part)
        is_full = len(data) >= _ENOUGH * room or wanted >= n_tokens(text) or n_tries >= _MAX_TRIES
        if len(data) <= room and is_full:
            return part, data
        wanted *= 0.985 * room / len(data)


def _pair_weights(text: Text) -> dict[tuple[str, str], float]:
    """Weigh the kinds of pairs as `batches.draw_pairs` draws them."""
    totals: dict[str, float] = {}
    for task, origin in text.pairs:
        totals[task] = totals.get(task, 0.0) + ORIGIN_WEIGHTS.get(origin, OTHER_ORIGIN)
    return {
        (task, origin): STABLE.tasks[task] * ORIGIN_WEIGHTS.get(origin, OTHER_ORIGIN) / totals[task]
        for task, origin in text.pairs
    }


def _every(pairs: Pairs, size: float) -> Pairs:
    """Keep about `size` tokens of pairs, at even distances in their order of length."""
    n_kept = round(len(pairs) * min(1.0, size / max(1, len(pairs.sources.ids) + len(pairs.targets.ids))))
    kept = [i * len(pairs) // n_kept for i in range(n_kept)]
    return Pairs(pack(pairs.sources[i] for i in kept), pack(pairs.targets[i] for i in kept))


def _lengths(ends: Array) -> npt.NDArray[np.uint16]:
    return np.diff(ends, prepend=0).astype(np.uint16)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
