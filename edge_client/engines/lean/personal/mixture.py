"""A mixture of a local and the global adapter whose share is learnt: α·B·A + (1 - α)·G (APFL, arXiv 2003.13461)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.lora import Factors, Linear


class Mixture:
    """The mixture on some linear maps, whose own strands hold α·B and A, and whose strands beside hold (1 - α)·G.

    Args:
        linears: by name; their strands are the local model's B and A as it begins.
        received: the global adapter G by name, of weights that have one.
        mix: α to begin with.
        learning_rate: of α.

    Attributes:
        leaves: B and A of the local model, which are trained.
    """

    def __init__(
        self, linears: Mapping[str, Linear], received: Mapping[str, Factors], mix: float, learning_rate: float
    ) -> None:
        self._linears = linears
        self._b = {name: linear.b.detach().clone() for name, linear in linears.items()}
        self._global = {name: received[name] for name in linears if name in received}
        self._mix = torch.tensor([[mix]])
        self._mix_adam = Adam({"mix": self._mix}, learning_rate)
        for name, factors in self._global.items():
            linears[name].put_beside(factors)
            self._beside(name).a.requires_grad_(False)
        self.leaves: dict[str, Tensor] = {f"b.{name}": b for name, b in self._b.items()}
        for name, linear in linears.items():
            assert linear.a is not None
            self.leaves[f"a.{name}"] = linear.a

    @property
    def mix(self) -> float:
        """α, between 0, the global adapter alone, and 1, the local one."""
        return float(self._mix)

    @torch.no_grad()
    def put_on(self) -> None:
        """Make the linear maps what B, A and α are now."""
        for name, linear in self._linears.items():
            linear.b.copy_(self._b[name] * self.mix)
        for name, factors in self._global.items():
            beside = self._beside(name).b
            beside.copy_(factors.b.to(beside) * (1 - self.mix))

    @torch.no_grad()
    def take_gradients(self, n_tokens: int) -> None:
        """Turn the gradients that a loss summed over `n_tokens` has left on the linear maps into those of B and A, and
        take α's step: with E = ∂L/∂ΔW, the gradients by α·B and (1 - α)·G's left factor are E·Aᵀ and E·G_aᵀ, so
        that ∂L/∂α = ⟨E, B·A - G⟩ = ⟨E·Aᵀ, B⟩ - ⟨E·G_aᵀ, G_b⟩, and ∂L/∂B = α·E·Aᵀ."""
        slope = torch.zeros(())
        for name, linear in self._linears.items():
            assert linear.b.grad is not None
            slope += (linear.b.grad * self._b[name]).sum().cpu()
            self._b[name].grad = linear.b.grad * self.mix
            linear.b.grad = None
        for name, factors in self._global.items():
            beside = self._beside(name).b
            assert beside.grad is not None
            slope -= (beside.grad * factors.b.to(beside)).sum().cpu()
            beside.grad = None
        self._mix.grad = slope.reshape(1, 1)
        self._mix_adam.step(n_tokens)
        self._mix.clamp_(0, 1)

    def strands(self) -> dict[str, Factors]:
        """B and A of the local model, on the CPU."""
        return {
            name: Factors(self._b[name].detach().cpu(), linear.factors.a.cpu())
            for name, linear in self._linears.items()
        }

    def _beside(self, name: str) -> Factors:
        beside = self._linears[name].beside
        assert beside is not None
        return beside
