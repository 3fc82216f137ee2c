"""Texts that repeat one another: the corpus must not hold what tests ask, and should not hold the same thing twice.

A text is a set of shingles, its runs of `SHINGLE` words. Overlap with the tested texts is counted exactly (the share
of a paragraph's shingles that a tested text has); likeness within the corpus is estimated by MinHash with banding
(Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

SHINGLE = 8
"""Words of a shingle: long enough that two texts share one by quoting, and one changed word breaks few of them."""

MAX_TESTED_SHARE = 0.1
"""A paragraph goes when more than this share of its shingles stands in a tested text."""

BANDS, BAND_HASHES = 6, 4
"""Bands of a signature and hashes of a band: two texts meet with chance 1 - (1 - J^4)^6, which is a half at J = 0.57
and 97 % at J = 0.8, where J is their shingles' Jaccard index."""

MIN_SHINGLES = 12
"""Likeness is looked for in texts of at least so many shingles; shorter ones are compared as they are."""

_WORD = re.compile(r"[a-z0-9]+")
_PRIME = (1 << 61) - 1
_FACTORS = np.random.default_rng(4_211).integers(1, 1 << 32, size=(BANDS * BAND_HASHES, 2), dtype=np.uint64)


def shingles(text: str) -> npt.NDArray[np.uint64]:
    """Hash each run of `SHINGLE` lower-case words, without repetition; empty for a shorter text."""
    words = _WORD.findall(text.lower())
    runs = (" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))
    return np.unique(np.fromiter((zlib.crc32(run.encode()) for run in runs), dtype=np.uint64))


class Reserved:
    """The shingles of every text that a test asks or compares with."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Collect them."""
        found = [shingles(text) for text in texts]
        self._known = np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)

    def __len__(self) -> int:
        """Count the shingles."""
        return len(self._known)

    def share(self, text: str) -> float:
        """Measure the share of a text's shingles that are known, 0..1; 0 for a text without any."""
        own = shingles(text)
        if not len(own) or not len(self._known):
            return 0.0
        places = np.minimum(np.searchsorted(self._known, own), len(self._known) - 1)
        return float((self._known[places] == own).mean())

    def without(self, text: str) -> str:
        """Drop the paragraphs of a text that repeat a tested one; the whole text where most of it does."""
        if self.share(text) <= MAX_TESTED_SHARE / 4.0:
            return text
        kept = [p for p in re.split(r"\n\s*\n", text) if self.share(p) <= MAX_TESTED_SHARE]
        joined = "\n\n".join(kept)
        return joined if self.share(joined) <= MAX_TESTED_SHARE else ""


class Seen:
    """Texts seen so far, by MinHash signature."""

    def __init__(self) -> None:
        """Begin with none."""
        self._buckets: set[int] = set()

    def is_repeated(self, text: str) -> bool:
        """Tell whether a text is nearly one that was seen, and remember it."""
        own = shingles(text)
        if len(own) < MIN_SHINGLES:
            keys = [hash(" ".join(_WORD.findall(text.lower())))]
        else:
            a, b = _FACTORS[:, :1], _FACTORS[:, 1:]
            lowest = ((own[None, :] * a + b) % np.uint64(_PRIME)).min(axis=1)  # (BANDS * BAND_HASHES,)
            keys = [hash((band, row.tobytes())) for band, row in enumerate(lowest.reshape(BANDS, BAND_HASHES))]
        repeated = any(key in self._buckets for key in keys)
        self._buckets.update(keys)
        return repeated
