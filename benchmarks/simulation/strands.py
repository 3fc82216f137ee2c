"""Strands that simulated boards train: the builtin base's weights, ranks of them, and how many values these have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import builtin_base
from braid_common.base.files import read_t5_config
from edge_client.plan.strand_selection import allot, basis_rows, strand_order
from wire.manifest import t5_weights
from wire.run import RunInfo, Scope, Weight


@dataclass(frozen=True, slots=True)
class Trained:
    """Sums over ranks: values that are trained, the encoder's part of them (0…1), and weights with a strand."""

    n_values: int
    encoder_share: float
    n_weights: int


def weights(scope: Scope, base_folder: Path | None = None) -> tuple[Weight, ...]:
    """A base's weights of a scope; the builtin base's where None."""
    return t5_weights(read_t5_config(base_folder or builtin_base.folder()), scope)


def equal_ranks(run: RunInfo, rank: int) -> tuple[int, ...]:
    """The same rank of every weight, as far as the weight has so many strands."""
    return tuple(min(rank, n_strands) for n_strands in basis_rows(run))


def ranks_within(run: RunInfo, n_parameters: int) -> tuple[int, ...]:
    """Ranks of as many leading strands, the most valuable first, as train at most `n_parameters` values."""
    order, n_values, n_strands = strand_order(run), 0, 0
    for index in order:
        n_values += _strand_values(run.weights[index], run.settings.trains_a)
        if n_values > n_parameters:
            break
        n_strands += 1
    return allot(order, len(run.weights), n_strands)


def n_parameters(manifest: Sequence[Weight], ranks: Sequence[int], *, trains_a: bool = False) -> int:
    """Values that are trained at these ranks: Σ r_w·m_w of B, or Σ r_w·(m_w + n_w) where A is trained as well."""
    return sum(rank * _strand_values(weight, trains_a) for rank, weight in zip(ranks, manifest, strict=True))


def trained(manifest: Sequence[Weight], ranks: Sequence[int], *, trains_a: bool) -> Trained:
    """Sums up ranks of weights."""
    n_values = n_parameters(manifest, ranks, trains_a=trains_a)
    encoder_ranks = [rank if weight.is_encoder else 0 for rank, weight in zip(ranks, manifest, strict=True)]
    n_encoder = n_parameters(manifest, encoder_ranks, trains_a=trains_a)
    return Trained(n_values, n_encoder / max(1, n_values), sum(rank > 0 for rank in ranks))


def _strand_values(weight: Weight, trains_a: bool) -> int:
    """Values that one strand of a weight trains."""
    return weight.rows + weight.columns * trains_a
