"""Batches repeat, which is what lets a run resume."""

from __future__ import annotations

import numpy as np
import pytest

from builtin_base.training import batches
from builtin_base.training.mixture import DECAY, STABLE


def test_batches_repeat(sources: batches.Sources) -> None:
    """A step's batches depend on seed and step alone, so that a run that resumes sees what it would have seen."""
    first, again, other = (batches.draw(sources, 512, 3, number) for number in (7, 7, 8))
    assert all(np.array_equal(first[name][0], again[name][0]) for name in first)
    assert not np.array_equal(first["span"][0], other["span"][0])


def test_a_branch_is_shown_more_of_what_is_asked(sources: batches.Sources) -> None:
    """The mixture of a branch has another half of tasks in the place of spans, and most of those are summaries."""
    steps = [batches.draw(sources, 512, 3, number, DECAY) for number in range(40)]
    names = [name.removesuffix("_2") for drawn in steps for name in drawn]

    assert all(len(drawn) == 4 for drawn in steps)
    assert names.count("span") == names.count("programmatic") == len(steps)
    assert names.count("summary") > 0.6 * 2 * len(steps)
    assert sum(DECAY.tasks.values()) == pytest.approx(1) == sum(STABLE.tasks.values())


def test_padding_is_no_token() -> None:
    """Tokens that are counted are those that were there before rows were padded to equal length."""
    rows = [(np.array([5, 6, 1], np.uint16), np.array([9, 1], np.uint16)), (np.array([1], np.uint16),) * 2]

    assert batches.n_real_tokens({"a": batches.pad_batch(rows)}) == 7
