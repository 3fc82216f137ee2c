"""Merging in memory: two boards of unequal rank train one weight, and the rule adds the mean of what they did.

    python examples/merge_two_updates.py

No server and no torch. `train` stands for a board: it is sent the leading strands of the global adapter at its own
rank, and moves both factors at random.
"""

from __future__ import annotations

import numpy as np

from aggregator.merge.bases import random_basis
from aggregator.merge.rules import RULES, folded
from aggregator.merge.state import AdapterState, Factors, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from wire.run import Weight
from wire.tensors import unpack

WEAVE = RULES["weave"]
NAME, ROWS, COLUMNS = "decoder.block.0.layer.0.SelfAttention.q", 384, 512  # FLAN-T5-small's, and not square


def train(state: AdapterState, rank: int, n_examples: int, seed: int) -> Contribution:
    """One board's part in the round, trained at this rank."""
    (part,) = WEAVE.cut(state, [rank], "fp32")
    assert part.start_b is not None
    start = Factors(unpack(part.start_b), unpack(part.basis))  # B (384, rank) and A (rank, 512)
    rng = np.random.default_rng(seed)
    b, a = (x + 0.01 * rng.standard_normal(x.shape).astype(np.float32) for x in (start.b, start.a))
    return Contribution(weight=n_examples, strands={NAME: Factors(b, a)}, start={NAME: start}, trains="both")


def main() -> None:
    settings = MergeSettings(server_rank=16, max_rank=16)
    state = random_basis(initial_state([Weight(name=NAME, rows=ROWS, columns=COLUMNS)]), max_rank=16, seed=1)
    boards = [train(state, rank=4, n_examples=100, seed=2), train(state, rank=12, n_examples=300, seed=3)]

    after = WEAVE.merge(state, folded(WEAVE, boards), settings)

    weight = after.weights[NAME]
    changes = [board.strands[NAME].b @ board.strands[NAME].a for board in boards]  # both began at B = 0
    mean = 0.25 * changes[0] + 0.75 * changes[1]
    off = np.linalg.norm(weight.frozen_b @ weight.frozen_a - mean) / np.linalg.norm(mean)
    print(f"version {after.version}: rank {weight.frozen_a.shape[0]}, {off:.1e} away from the weighted mean")


if __name__ == "__main__":
    main()
