"""Tokenised text in a few large arrays instead of millions of small ones, in one safetensors file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from braid_common.atomic_file import write_atomically

Ids = npt.NDArray[np.uint16]
Array = npt.NDArray[np.uint16] | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Many rows of token ids, one behind the other.

    Attributes:
        ids: (n_tokens,) uint16.
        ends: (n_rows,) int64; row i is ``ids[ends[i - 1]:ends[i]]``.
    """

    ids: Ids
    ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.ends)

    def __getitem__(self, index: int) -> Ids:
        """Give one row, a view."""
        return self.ids[int(self.ends[index - 1]) if index else 0 : int(self.ends[index])]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.ends, prepend=0)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Sources with their targets, sorted by source length, so that neighbours can be batched without much padding."""

    sources: Rows
    targets: Rows

    def __len__(self) -> int:
        """Count the pairs."""
        return len(self.sources)


@dataclass(frozen=True, slots=True)
class Text:
    """One side (training or held-out) of the tokenised corpus.

    Attributes:
        streams: kind of document → all documents' ids one after another, eos between them.
        pairs: (task, origin) → its pairs.
    """

    streams: Mapping[str, Ids]
    pairs: Mapping[tuple[str, str], Pairs]


def pack(rows: Iterable[Sequence[int] | Ids]) -> Rows:
    """Lay rows of ids one behind the other."""
    arrays = [np.asarray(row, dtype=np.uint16) for row in rows]
    ends = np.cumsum([len(row) for row in arrays], dtype=np.int64)
    return Rows(np.concatenate(arrays) if arrays else np.empty(0, np.uint16), ends)


def sort(pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Pairs:
    """Make `Pairs` of (source ids, target ids)."""
    ordered = sorted(pairs, key=lambda pair: len(pair[0]))
    return Pairs(pack(source for source, _ in ordered), pack(target for _, target in ordered))


def arrays_of(text: Text) -> dict[str, Array]:
    """Lay a side out as arrays by name: ``stream/KIND``, and ``pairs/TASK/ORIGIN/SIDE/ids`` and ``…/ends``."""
    arrays: dict[str, Array] = {f"stream/{kind}": ids for kind, ids in text.streams.items()}
    for (task, origin), pairs in text.pairs.items():
        for side, rows in (("source", pairs.sources), ("target", pairs.targets)):
            arrays[f"pairs/{task}/{origin}/{side}/ids"] = rows.ids
            arrays[f"pairs/{task}/{origin}/{side}/ends"] = rows.ends
    return arrays


def text_of(arrays: Mapping[str, Any]) -> Text:
    """Make a side of what `arrays_of` laid out."""
    streams = {name.partition("/")[2]: ids for name, ids in arrays.items() if name.startswith("stream/")}
    keys = sorted({tuple(name.split("/")[1:3]) for name in arrays if name.startswith("pairs/")})
    pairs = {}
    for task, origin in keys:
        stem = f"pairs/{task}/{origin}"
        pairs[task, origin] = Pairs(
            *(Rows(arrays[f"{stem}/{side}/ids"], arrays[f"{stem}/{side}/ends"]) for side in ("source", "target"))
        )
    return Text(streams, pairs)


def write(path: Path, text: Text) -> None:
    """Write a side to a safetensors file."""
    write_atomically(path, save(arrays_of(text)))


def read(path: Path) -> Text:
    """Read what `write` wrote."""
    return text_of(load(path.read_bytes()))
