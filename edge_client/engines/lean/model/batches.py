"""Batches: which examples a training step sees, and how they become tensors.

The order is a function of (seed, step) alone, so that training resumes at any step without replaying those before it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from braid_common.seeds import derive_seed
from edge_client.data.tokeniser import Pair
from edge_client.jobs.sizes import LENGTH_STEP

IGNORED = -100
"""Label of a padded position, as in transformers."""

WINDOW_STEPS = 16
"""Steps whose examples are sorted by length together. Larger windows save more padding but tie length to time."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokenised examples side by side, padded on the right, on the CPU.

    Attributes:
        sources: source ids without padding.
        source: source ids (b, s) int64.
        source_mask: (b, s), True on tokens.
        decoder_input: what the decoder reads (b, t) int64, the start token first.
        labels: what it is to write (b, t) int64, IGNORED on padding.
        n_source_tokens: without padding.
        n_target_tokens: without padding.
    """

    sources: tuple[tuple[int, ...], ...]
    source: Tensor
    source_mask: Tensor
    decoder_input: Tensor
    labels: Tensor
    n_source_tokens: int
    n_target_tokens: int

    @property
    def padding(self) -> Tensor | None:
        """The source's mask, or None where nothing is padded: attention is then cheaper."""
        return self.source_mask if self.n_source_tokens < self.source.numel() else None


class Order:
    """Examples of each step of a round: shuffled epoch after epoch, then sorted by length inside a window of steps.

    Over all `steps`, exactly the first steps·batch places of the shuffled epochs are used, so that
    min(steps·batch, n) distinct examples are seen.

    Args:
        lengths: one per example, anything that grows with its tokens.
        batch: examples per step.
        steps: steps of the round.
        seed: the round's.
    """

    def __init__(self, lengths: Sequence[int], batch: int, steps: int, seed: int) -> None:
        self._lengths = lengths
        self._batch = batch
        self._steps = steps
        self._seed = seed
        self._epochs: dict[int, list[int]] = {}

    @property
    def n_distinct(self) -> int:
        """Distinct examples that the steps see."""
        return min(self._batch * self._steps, len(self._lengths))

    def distinct(self) -> list[int]:
        """Indices of all examples that the steps see, each once, in the order of the first epoch."""
        return [self._at(place) for place in range(self.n_distinct)]

    def examples(self, step: int) -> list[int]:
        """Indices of the `batch` examples of a step, 0 ≤ step < steps, longest first."""
        return [index for index, _ in self.reads(step)]

    def reads(self, step: int) -> list[tuple[int, int]]:
        """The examples of a step as in `examples`, each with the pass over all examples, from 0, that it belongs to."""
        # Sorted by length inside a window, the batches of which come in a shuffled order: little padding, and yet no
        # step after step of ever shorter texts.
        first = step - step % WINDOW_STEPS
        n_steps = min(WINDOW_STEPS, self._steps - first)
        places = range(first * self._batch, (first + n_steps) * self._batch)
        read = [(self._at(place), place // len(self._lengths)) for place in places]
        window = sorted(read, key=lambda each: -self._lengths[each[0]])
        turns = list(range(n_steps))
        random.Random(derive_seed(self._seed, "window", first)).shuffle(turns)
        turn = turns[step - first]
        return window[turn * self._batch : (turn + 1) * self._batch]

    def _at(self, place: int) -> int:
        epoch, offset = divmod(place, len(self._lengths))
        if epoch not in self._epochs:
            shuffled = list(range(len(self._lengths)))
            random.Random(derive_seed(self._seed, "epoch", epoch)).shuffle(shuffled)
            # A window may reach back into the epoch before this one, and no further.
            self._epochs = {past: self._epochs[past] for past in self._epochs if past >= epoch - 1} | {epoch: shuffled}
        return self._epochs[epoch][offset]


def micro_batches(pairs: Sequence[Pair], size: int, pad_id: int, start_id: int) -> Iterator[Batch]:
    """Consecutive groups of at most `size` pairs, each padded to its own longest."""
    for first in range(0, len(pairs), size):
        yield collate(pairs[first : first + size], pad_id, start_id)


def collate(pairs: Sequence[Pair], pad_id: int, start_id: int) -> Batch:
    """Pad pairs into one batch.

    The decoder reads the start token and then the target, one place behind the labels (teacher forcing).
    """
    labels = _padded([pair.target for pair in pairs], IGNORED, LENGTH_STEP // 4)
    source, mask = source_batch([pair.source for pair in pairs], pad_id)
    return Batch(
        sources=tuple(pair.source for pair in pairs),
        source=source,
        source_mask=mask,
        decoder_input=_padded([(start_id, *pair.target[:-1]) for pair in pairs], pad_id, LENGTH_STEP // 4),
        labels=labels,
        n_source_tokens=sum(len(pair.source) for pair in pairs),
        n_target_tokens=int((labels != IGNORED).sum()),
    )


def source_batch(sources: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Source ids (b, s) int64, padded, and their mask (True on tokens)."""
    return _padded(sources, pad_id, LENGTH_STEP), _padded([(1,) * len(ids) for ids in sources], 0, LENGTH_STEP).bool()


def _padded(rows: Sequence[Sequence[int]], filler: int, multiple: int) -> Tensor:
    """(rows, width) int64, width the longest row's length rounded up to `multiple`."""
    width = -(-max(len(row) for row in rows) // multiple) * multiple
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])
