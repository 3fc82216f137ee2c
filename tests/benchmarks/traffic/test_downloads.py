"""The benchmark's board counts what a board's downloads take, and holds what the server has."""

from __future__ import annotations

import numpy as np

from aggregator.merge.rules import RULES
from aggregator.merge.step import MergeSettings
from benchmarks.merge_speed.contestants import board, sent, start
from benchmarks.traffic.downloads import Downloads
from wire.run import Weight

WEIGHTS = (
    Weight(name="decoder.block.0.layer.0.SelfAttention.q", rows=48, columns=80),
    Weight(name="decoder.block.0.layer.2.DenseReluDense.wo", rows=80, columns=56),
)


def test_patches_are_smaller_and_end_at_the_same_adapter() -> None:
    """Three rounds of two boards of unequal rank: no more bytes than whole adapters, and nothing drifts."""
    rule, state, downloads = RULES["braid"], start(WEIGHTS), Downloads(RULES["braid"], rank=5)
    downloads.fetch(state)
    first_bytes = downloads.whole_bytes
    for round_ in range(3):
        total = None
        for number in range(2):
            total = rule.fold(total, board(WEIGHTS, 2 * round_ + number, sent("braid", state), sketch=False))
        state = rule.merge(state, total, MergeSettings(server_rank=32, max_rank=32))
        downloads.fetch(state)

    assert downloads.whole_bytes > 3 * first_bytes
    assert downloads.bytes <= downloads.unmixed_bytes <= downloads.whole_bytes
    assert downloads.deviation < 0.02  # what bf16 and the mixing of held factors lose
    assert np.isfinite(downloads.deviation)
