"""Fed-PLoRA: parallel rank-1 modules, of which a board trains some and folds the others into its frozen weights.

    W_g = Σ_j b_j·a_j          modules j, kept as they are; π_t: their order in round t, drawn anew each round
    board k trains b_j, a_j of the r_k first in π_t, over the frozen rest of W_g
    b_j ← Σ p_jk · b_jk      a_j ← Σ p_jk · a_jk        p_jk = n_k / Σ n over the boards that trained module j
    a module that nobody trained stays

Source: Fed-PLoRA (arXiv 2602.16936): one-rank modules in parallel, and Select-N-Fold. The fold is what a board is sent
here anyway, a frozen low-rank matrix beside what it trains. As in the paper a board sees the whole global adapter, and
modules are chosen by chance, not by singular value, which `weave` does.

What differs: π_t is one for all boards of a round, of each weight its own, so that what they train nests; in the paper
every board draws for itself. What a board is sent depends on its ranks and the version alone (decision 0080). A module
that the adapter lacks comes after all that it has: there are as many as the largest board has trained. B_j and A_j are
averaged each for itself, so that b_j·a_j is not the mean of products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aggregator.merge.bases import first_drawn_basis, next_version, with_values
from aggregator.merge.pair_total import PairSum, PairTotal, by_weight, fold_pairs
from aggregator.merge.slices import cut_woven
from aggregator.merge.state import F64, AdapterState, WeightState
from aggregator.merge.step import MergeSettings
from aggregator.merge.sums import Contribution
from aggregator.merge.targets import stepped_to_pair
from aggregator.merge.traits import Traits
from braid_common.seeds import derive_seed
from wire.fields import Dtype
from wire.messages import AdapterPart

__all__ = ["TRAITS", "cut", "first_basis", "fold", "merge"]

TRAITS = Traits(
    summary="boards train some of the adapter's rank-1 modules, drawn each round, over all others frozen; not exact",
    space="factors",
    cycle=("both",),
    has_start=True,
    is_change=False,
)

first_basis = first_drawn_basis


def cut(state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
    """The modules that come first in the round's order, and all others frozen; a weight that the board does not train
    as it is. Raises WireError as `cut_basis`."""
    wanted = dict(zip(state.weights, ranks, strict=False))  # whether there are too few, cut_woven says
    weights = {
        name: _shuffled(weight, _order(state, name)) if wanted.get(name) else weight
        for name, weight in state.weights.items()
    }
    return cut_woven(replace(state, weights=weights), ranks, dtype)


def fold(total: PairTotal | None, added: Contribution) -> PairTotal:
    """The sums with one more board. Neither argument changes."""
    return fold_pairs(total, added, by_weight)


def merge(state: AdapterState, total: PairTotal, settings: MergeSettings) -> AdapterState:
    """The next version. A weight that nobody trained stays as it was. Raises ValueError where the sum does not fit the
    state (screened updates always do)."""
    total.check_names(state, total.pairs)

    def step(name: str, weight: WeightState) -> WeightState:
        pair = total.pairs.get(name)
        return stepped_to_pair(weight, None if pair is None else _averaged(weight, pair, _order(state, name)), settings)

    return next_version(state, total, settings, step, with_values)


def _order(state: AdapterState, name: str) -> NDArray[np.intp]:
    """The modules of a weight in the order in which the round on this version chooses them."""
    rng = np.random.default_rng(derive_seed(state.version, "modules", name))
    return rng.permutation(state.weights[name].frozen_a.shape[0])


def _shuffled(weight: WeightState, order: NDArray[np.intp]) -> WeightState:
    return replace(weight, frozen_b=weight.frozen_b[:, order], frozen_a=weight.frozen_a[order])


def _averaged(weight: WeightState, total: PairSum, order: NDArray[np.intp]) -> tuple[F64, F64]:
    """B and A of all modules in the adapter's own order: the means of those that were trained, the others as they were,
    and at the end those that are new."""
    trained, held = len(total.coverage), len(order)
    places = np.concatenate([order, np.arange(held, max(held, trained))])[:trained]
    b = np.zeros((weight.shape[0], max(held, trained)))
    a = np.zeros((max(held, trained), weight.shape[1]))
    b[:, :held], a[:held] = weight.frozen_b, weight.frozen_a
    b[:, places], a[places] = total.b / total.coverage, total.a / total.coverage[:, None]
    return b, a
