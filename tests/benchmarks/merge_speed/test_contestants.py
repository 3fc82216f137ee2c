"""Contestants of the merge's benchmark give the same matrix, so that their times can be compared."""

from __future__ import annotations

import pytest

from benchmarks.merge_speed.contestants import CONTESTANTS, WITH_SKETCHES, board, relative_error
from wire.run import Weight

WEIGHTS = (
    Weight(name="decoder.block.0.layer.0.SelfAttention.q", rows=48, columns=80),
    Weight(name="decoder.block.0.layer.2.DenseReluDense.wo", rows=80, columns=56),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTESTANTS)
def test_every_contestant_merges_right(name: str) -> None:
    """Against the dense float64 sum, cut by its SVD. Ranks are unequal, weights not square."""
    contestant = CONTESTANTS[name](WEIGHTS)
    for number in range(3):
        contestant.fold(board(WEIGHTS, number, contestant.sent, name in WITH_SKETCHES))
    contestant.merge()

    assert relative_error(name, contestant, WEIGHTS, 3) < 2e-3
