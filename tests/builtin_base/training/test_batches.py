"""Batches repeat, which is what lets a run resume."""

from __future__ import annotations

import numpy as np

from builtin_base.training import batches


def test_batches_repeat(sources: batches.Sources) -> None:
    """A step's batches depend on seed and step alone, so that a run that resumes sees what it would have seen."""
    first, again, other = (batches.draw(sources, 512, 3, number) for number in (7, 7, 8))
    assert all(np.array_equal(first[name][0], again[name][0]) for name in first)
    assert not np.array_equal(first["span"][0], other["span"][0])


def test_padding_is_no_token() -> None:
    """Tokens that are counted are those that were there before rows were padded to equal length."""
    rows = [(np.array([5, 6, 1], np.uint16), np.array([9, 1], np.uint16)), (np.array([1], np.uint16),) * 2]

    assert batches.n_real_tokens({"a": batches.pad_batch(rows)}) == 7
