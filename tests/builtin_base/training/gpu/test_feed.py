"""Batches that other processes draw are those that would have been drawn here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from builtin_base.training import batches
from builtin_base.training.gpu.feed import Feed
from tests.fakes.base_training import write_run_folder


def test_drawn_ahead_is_drawn_alike(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Any step first, then in order, over the border of a group."""
    write_run_folder(tmp_path / "run", tokenizer)
    sources = batches.open_sources(tmp_path / "run" / "text", tokenizer, 128, 5)

    with Feed(tmp_path / "run", 128, 5, n_workers=1) as feed:
        for step in (14, 15, 16):
            ours, theirs = feed.draw(step), batches.draw(sources, 128, 5, step)
            assert list(ours) == list(theirs)
            for name, batch in theirs.items():
                assert ours[name][0].dtype == np.int64
                np.testing.assert_array_equal(ours[name][0], batch[0])
                np.testing.assert_array_equal(ours[name][1], batch[1])
