"""Nested ranks: a backward pass trains the leading strands alone, so that what is learnt gathers in the first ones.

    W_g + B[:, :p]·A[:p]          p = max(1, ⌊r / 2^j⌋), j drawn anew for each pass from 0 … N-1, all alike

Source: PreLort (arXiv 2606.15963), which trains each adapter under several truncations of its rank, after nested
dropout (arXiv 1402.0915). Drawing one truncation for each pass takes no pass more; its gradient is, on average, that of
the mean of the N losses. Strands beyond the prefix are left out, and gather no gradient; under a rule that freezes the
rest of the global adapter beside a board's strands, that rest stays. All weights are cut in the same way. PreLort's
other half, a mean of each rank index over the boards that hold it, is the merge rule `rank-partitioned`.
"""

from __future__ import annotations

from collections.abc import Mapping

from braid_common.seeds import derive_seed
from edge_client.engines.lean.model.lora import Linear


class NestedRanks:
    """The truncations of one round's passes.

    Args:
        linears: the maps whose strands are trained.
        n_ranks: N, how many ranks are nested, the whole one among them.
        seed: what passes are drawn from, of one board and round.
    """

    def __init__(self, linears: Mapping[str, Linear], n_ranks: int, seed: int) -> None:
        self._linears, self._n_ranks, self._seed = linears, n_ranks, seed

    def start_pass(self, first: int) -> None:
        """Cut the strands for the pass that begins when the round has seen `first` examples: the same cut whenever that
        pass is taken."""
        halvings = derive_seed(self._seed, "nested", first) % self._n_ranks
        for linear in self._linears.values():
            linear.prefix = nested_rank(linear.rank, halvings) if halvings else None

    def end_pass(self) -> None:
        """Let all strands count again."""
        for linear in self._linears.values():
            linear.prefix = None


def nested_rank(rank: int, halvings: int) -> int:
    """p of a weight that has `rank` strands: at least one, where it has any."""
    return min(rank, max(1, rank >> halvings))
