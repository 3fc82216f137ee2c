"""Batches drawn ahead by other processes: one alone draws too slowly for a GPU."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
from tokenizers import Tokenizer

from builtin_base.training import batches
from builtin_base.training.programmatic.exercises import POOL

_sources: tuple[batches.Sources, int, int] | None = None
"""What a drawing process opened when it started: sources, tokens of a batch, seed."""


class Feed:
    """The batches of each step, the same as `batches.draw` gives, drawn ahead in groups of `POOL` steps."""

    def __init__(self, folder: Path, n_tokens: int, seed: int, n_workers: int) -> None:
        """Start the processes.

        Args:
            folder: with ``text/`` and the tokenizer.
            n_tokens: tokens of one batch with padding.
            seed: decides every batch.
            n_workers: processes; each is one group ahead.
        """
        self._executor = ProcessPoolExecutor(
            n_workers,
            multiprocessing.get_context("spawn"),  # a process that used CUDA or threads must not be forked
            initializer=_open,
            initargs=(folder, n_tokens, seed),
        )
        self._n_ahead = n_workers
        self._groups: dict[int, Future[list[dict[str, batches.Batch]]]] = {}

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    def draw(self, step: int) -> dict[str, batches.Batch]:
        """Draw the batches of a step; steps are asked for in order, from anywhere."""
        number, place = divmod(step, POOL)
        self._groups = {n: group for n, group in self._groups.items() if n >= number}
        for n in range(number, number + 1 + self._n_ahead):
            if n not in self._groups:
                self._groups[n] = self._executor.submit(_draw_group, n)
        drawn = self._groups[number].result()[place]
        return {name: (source.astype(np.int64), target.astype(np.int64)) for name, (source, target) in drawn.items()}


def _open(folder: Path, n_tokens: int, seed: int) -> None:
    global _sources
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there are as many processes as processors already
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    _sources = batches.open_sources(folder / "text", tokenizer, n_tokens, seed), n_tokens, seed


def _draw_group(number: int) -> list[dict[str, batches.Batch]]:
    """Draw the steps of a group, ids in 16 bits, since they travel between processes."""
    if _sources is None:
        raise RuntimeError("a process draws before it opened its text")
    sources, n_tokens, seed = _sources
    drawn = (batches.draw(sources, n_tokens, seed, step) for step in range(number * POOL, (number + 1) * POOL))
    return [
        {name: (source.astype(np.uint16), target.astype(np.uint16)) for name, (source, target) in step.items()}
        for step in drawn
    ]
