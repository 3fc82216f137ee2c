"""Self-pruning of HetLoRA (Cho et al. 2024, arXiv 2401.06432, section 3): boards give up trailing strands.

While a round trains both factors, the loss of each weight has λ·‖A[t:]‖·‖B[:, t:]‖ added, t = ⌊γ·r⌋, which pulls the
tail towards zero where the text does not hold it up. A weight whose tail has become smaller than it was when the round
began is sent without it. Norms are Frobenius norms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from edge_client.engines.lean.model.lora import Factors, Linear

KEPT_SHARE = 0.99
"""γ, the part of the strands before the tail, as in FederatedScope's code of the paper."""

PENALTY = 1e-3
"""λ beside the mean loss per target token, as in the same code."""

_SMALLEST_NORM = 1e-12
"""Below it a norm's gradient falls to zero with the norm: that of a tail which begins at zero is not defined."""


def tail_start(rank: int) -> int:
    """t, the first strand of the tail: at least one strand is tail where there are two, none of a single one is."""
    return min(math.floor(KEPT_SHARE * rank), rank - 1) if rank > 1 else rank


def tail_product(factors: Factors) -> float:
    """‖A[t:]‖·‖B[:, t:]‖ of b (m, r) and a (r, n); 0 where there is no tail."""
    t = tail_start(len(factors.a))
    return float(torch.linalg.vector_norm(factors.a[t:]) * torch.linalg.vector_norm(factors.b[:, t:]))


class Pruning:
    """The pruning of one round that trains both factors of `linears`.

    Make it before the first step: it notes how large the tails are.
    """

    def __init__(self, linears: Mapping[str, Linear]) -> None:
        self._linears = {name: linear for name, linear in linears.items() if linear.rank > 1}
        self._begun = {name: tail_product(linear.factors) for name, linear in self._linears.items()}

    @torch.no_grad()
    def add_gradients(self, n_tokens: int) -> None:
        """Add the penalty's gradients to those of a loss summed over `n_tokens`. They are no part of the loss told."""
        for linear in self._linears.values():
            for factor, gradient in _tail_gradients(linear):
                factor.add_(gradient, alpha=PENALTY * n_tokens)

    def without_tails(self, trained: Mapping[str, Factors]) -> dict[str, Factors]:
        """The factors to be sent: a tail whose product has shrunk is left out. One that began at zero cannot shrink."""
        return {name: self._pruned(name, factors) for name, factors in trained.items()}

    def _pruned(self, name: str, factors: Factors) -> Factors:
        if name not in self._begun or tail_product(factors) >= self._begun[name]:
            return factors
        t = tail_start(len(factors.a))
        return Factors(factors.b[:, :t], factors.a[:t])


def _tail_gradients(linear: Linear) -> Iterator[tuple[Tensor, Tensor]]:
    """The tails of B's and A's gradients, and what ‖A[t:]‖·‖B[:, t:]‖ adds to them: zero where a norm is zero."""
    t, a, b = tail_start(linear.rank), linear.a, linear.b
    assert a is not None
    assert a.grad is not None
    assert b.grad is not None
    tail_b, tail_a = b[:, t:], a[t:]
    norm_b, norm_a = torch.linalg.vector_norm(tail_b), torch.linalg.vector_norm(tail_a)
    # ∂(‖A_t‖·‖B_t‖)/∂B_t = ‖A_t‖·B_t/‖B_t‖, and the same for A with the two exchanged.
    yield b.grad[:, t:], tail_b / norm_b.clamp_min(_SMALLEST_NORM) * norm_a
    yield a.grad[t:], tail_a / norm_a.clamp_min(_SMALLEST_NORM) * norm_b
