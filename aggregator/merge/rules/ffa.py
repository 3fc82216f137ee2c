"""FFA-LoRA: one random A, the same for all boards and never changed; boards train B alone.

    W_g ← truncate_{R_s}( W_g + η · (Σ p_k · pad(B_k)) · A )          p_k = n_k / Σ n over the accepted updates

Source: FFA-LoRA (arXiv 2403.12313). Its boards go on training the global B; here that is frozen as B_g·A
and they train what is added to it, which is the same function of the same numbers. Boards of unequal rank train leading
rows of A. W_g never leaves the row space of A: with server_rank at least max_rank nothing is ever truncated.

Rows of a random A are worth alike, and no sketch can order them. Their values stay those of the best rows, σ² of the
gradient sketches: they say how much a weight is worth beside others, and that a further strand of it is worth less.
"""

from __future__ import annotations

from aggregator.merge.bases import first_drawn_basis, next_version, with_values
from aggregator.merge.slices import cut_basis
from aggregator.merge.state import AdapterState, WeightState
from aggregator.merge.step import MergeSettings, stepped
from aggregator.merge.sums import BasisSum, fold_basis
from aggregator.merge.traits import Traits

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(summary="boards train B alone on one random A that never changes (FFA-LoRA)", space="basis")

first_basis = first_drawn_basis
cut = cut_basis
fold = fold_basis


def merge(state: AdapterState, total: BasisSum, settings: MergeSettings) -> AdapterState:
    """The next version, of the same bases. The mean is over all boards of the sum: one that did not train a weight
    counts as zero there. Raises ValueError where the sum does not fit the state (screened updates always do)."""
    total.check_names(state, total.b, total.stale)

    def step(name: str, weight: WeightState) -> WeightState:
        return stepped(weight, total.change(name, weight), settings)

    return next_version(state, total, settings, step, refresh=with_values)
