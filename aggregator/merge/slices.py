"""Slices of a version for boards: parts of an adapter, cut to their ranks, in one of four ways.

Where boards train the global adapter itself, all of it changes in every round, and nearly all of it travels each time,
frozen beside what a small board trains. Nobody trains that, and the server's own stays float32, so it travels in eight
bits. Frozen adapters beside a basis travel as patches (aggregator/downloads/patches.py), for which eight bits are too
coarse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aggregator.merge.initial_factors import initial_factors
from aggregator.merge.state import F32, AdapterState, Factors, WeightState
from braid_common.seeds import derive_seed
from wire.dtypes import frozen_dtype
from wire.errors import WireError
from wire.fields import Dtype
from wire.messages import AdapterPart, Tensor
from wire.tensors import pack


def cut_basis(state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
    """The whole global adapter, frozen, and leading rows of the bases, for a board of these ranks (manifest order).

    Tensors are in `dtype`, the number format of what boards are sent.

    Raises WireError where there are not as many ranks as weights, or one is larger than the weight's basis.
    """

    def part(name: str, weight: WeightState, rank: int) -> AdapterPart:
        return _beside_frozen(name, weight, weight.basis[:rank], dtype)

    return _parts(state, ranks, part)


def cut_frozen(state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
    """The whole global adapter alone, frozen, for boards that draw their own A. Raises WireError as `cut_basis`."""

    def part(name: str, weight: WeightState, _: int) -> AdapterPart:
        return _beside_frozen(name, weight, weight.basis[:0], dtype)

    return _parts(state, ranks, part)


def cut_start(state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
    """The leading strands of the global adapter as what a board begins with, and nothing frozen under them; the whole
    global adapter, frozen, of a weight that it does not train. Raises WireError as `cut_basis`."""

    def part(name: str, weight: WeightState, rank: int) -> AdapterPart:
        if not rank:
            return _frozen(name, weight, dtype)
        begin = initial_factors(weight, rank, derive_seed(state.version, "start", name))
        return _begun(name, weight, begin, weight.frozen_a.shape[0], dtype)

    return _parts(state, ranks, part)


def cut_woven(state: AdapterState, ranks: Sequence[int], dtype: Dtype) -> tuple[AdapterPart, ...]:
    """The leading strands as `cut_start` has them, with all the rest of the global adapter frozen beside them; strands
    that it lacks begin along the basis. Raises WireError as `cut_basis`."""

    def part(name: str, weight: WeightState, rank: int) -> AdapterPart:
        if not rank:
            return _frozen(name, weight, dtype)
        begin = initial_factors(weight, rank, derive_seed(state.version, "start", name), along_basis=True)
        return _begun(name, weight, begin, rank, dtype)

    return _parts(state, ranks, part)


def _begun(name: str, weight: WeightState, begin: Factors, first: int, dtype: Dtype) -> AdapterPart:
    """The part of a weight with its initial factors, and the global adapter's strands from `first` on, frozen."""
    frozen_b, frozen_a = _strands(weight, first, dtype)
    return AdapterPart(
        name=name, frozen_b=frozen_b, frozen_a=frozen_a, basis=pack(begin.a, dtype), start_b=pack(begin.b, dtype)
    )


def _frozen(name: str, weight: WeightState, dtype: Dtype) -> AdapterPart:
    """The part of a weight that a board does not train: the whole global adapter, frozen."""
    frozen_b, frozen_a = _strands(weight, 0, dtype)
    return AdapterPart(name=name, frozen_b=frozen_b, frozen_a=frozen_a, basis=pack(weight.basis[:0], dtype))


def _strands(weight: WeightState, first: int, dtype: Dtype) -> tuple[Tensor, Tensor]:
    """The global adapter's strands from `first` on, to be held frozen beside others in `dtype`. In eight bits A carries
    their lengths: its rows have scales of their own, where B's columns share theirs."""
    b, a = weight.frozen_b[:, first:], weight.frozen_a[first:]
    frozen = frozen_dtype(dtype)
    if frozen == dtype:
        return pack(b, dtype), pack(a, dtype)
    lengths = np.linalg.norm(b.astype(np.float64), axis=0)
    lengths[lengths == 0] = 1
    return pack(b / lengths, frozen), pack(a * lengths[:, None], frozen)


def _parts(
    state: AdapterState, ranks: Sequence[int], part: Callable[[str, WeightState, int], AdapterPart]
) -> tuple[AdapterPart, ...]:
    if len(ranks) != len(state.weights):
        raise WireError(f"{len(ranks)} ranks were asked for, but the run has {len(state.weights)} weights")
    for (name, weight), rank in zip(state.weights.items(), ranks, strict=True):
        if not 0 <= rank <= len(weight.basis):
            raise WireError(f"rank {rank} was asked for {name}, whose basis has {len(weight.basis)} rows")
    return tuple(part(name, w, rank) for (name, w), rank in zip(state.weights.items(), ranks, strict=True))


def _beside_frozen(name: str, weight: WeightState, basis: F32, dtype: Dtype) -> AdapterPart:
    return AdapterPart(
        name=name,
        frozen_b=pack(weight.frozen_b, dtype),
        frozen_a=pack(weight.frozen_a, dtype),
        basis=pack(basis, dtype),
    )
