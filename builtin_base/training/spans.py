"""Restoring spans of running text: how much is taken out, and the source and target that come of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from builtin_base.training.tokenizer import EOS_ID, VOCAB_SIZE, sentinel_id

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


def draw_denoiser(rng: np.random.Generator) -> Denoiser:
    """Choose how the next batch of running text is corrupted."""
    return DENOISERS[int(rng.choice(len(DENOISERS), p=[share for _, share in DENOISERS]))][0]


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


def _random_lengths(total: int, n_parts: int, rng: np.random.Generator) -> list[int]:
    """Cut `total` into `n_parts` random parts of at least 1."""
    cuts = np.sort(rng.choice(total - 1, size=n_parts - 1, replace=False)) + 1
    return [int(n) for n in np.diff(np.concatenate([[0], cuts, [total]]))]
