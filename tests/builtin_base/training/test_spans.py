"""Corrupted text and what is to be written in its place belong together."""

from __future__ import annotations

import numpy as np
import pytest

from builtin_base.training.spans import DENOISERS, Denoiser, corrupt_spans
from builtin_base.training.tokenizer import EOS_ID, sentinel_id


@pytest.mark.parametrize("denoiser", [denoiser for denoiser, _ in DENOISERS])
def test_corrupted_spans_can_be_put_back(denoiser: Denoiser) -> None:
    """Source and target together hold every token once, and their lengths fit the limits."""
    ids = np.arange(3, 3 + denoiser.row)

    source, target = corrupt_spans(ids, denoiser, np.random.default_rng(1))

    assert len(source) + len(target) == denoiser.size
    assert len(source) <= 192
    assert source[-1] == target[-1] == EOS_ID
    spans = {int(part[0]): part[1:] for part in np.split(target[:-1], np.where(target >= sentinel_id(99))[0])[1:]}
    restored = [spans[i] if i in spans else np.array([i]) for i in map(int, source[:-1])]
    np.testing.assert_array_equal(np.concatenate(restored), ids)
