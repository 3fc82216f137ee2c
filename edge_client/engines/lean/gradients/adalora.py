"""AdaLoRA's importance of a weight: how much the loss depends on a low-rank change that is being learnt.

Zhang et al. 2023 (arXiv 2303.10512, section 3.2); PEFT's `RankAllocator` computes the same:

    ΔW = B·diag(E)·A                       B (m, r), E (r), A (r, n); E = 0 at first; trained by Adam meanwhile
    I(θ) = |θ·∂L/∂θ|                       sensitivity of every entry θ of B, E and A, before each step
    Ī ← β₁·Ī + (1 − β₁)·I                  smoothed over steps
    Ū ← β₂·Ū + (1 − β₂)·|I − Ī|            how much it varies
    s(θ) = Ī·Ū
    S_i = s(E_i) + mean_j s(A_ij) + mean_j s(B_ji)      of triplet i

FedPipe (arXiv 2404.06448) scores weights "via SVD on low-rank adapters" and sensitivity, without published equations; a
weight's score is here the sum of its triplets' S_i. One step is taken per micro-batch, on its mean loss per target
token, so S has the unit nats² and does not depend on how many tokens a board has. All weights share one learning rate
and one start, so their scores may be compared.

AdaLoRA also pulls BᵀB and AAᵀ towards the identity (weight 0.1 to 0.5). That term is left out: the few steps of a
window cannot make a random start orthogonal, and the pull, which is the same whatever the text says, would be all that
the scores of A and B see. At weight 0.1 its sensitivity was 10,000 times the text's (builtin base, MTS-Dialog, 8
steps).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from braid_common.seeds import derive_seed
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.jobs.sizes import ADALORA_RANK
from wire.run import Weight

BETA = 0.85
"""β₁ and β₂ of the paper and of PEFT."""

START_DEVIATION = 0.02
"""Standard deviation of the normal start of A and B, as in the authors' code and PEFT."""

LEARNING_RATE = 1e-3
"""Step of Adam on B, E and A. Scores grow with its square, all weights' alike: with 3e-3 their order stays (Spearman
0.94)."""


class Sensitivity:
    """Smoothed sensitivity Ī of one tensor's entries, and its variation Ū, fp32."""

    def __init__(self, value: Tensor) -> None:
        self._mean = torch.zeros_like(value)
        self._spread = torch.zeros_like(value)

    def update(self, value: Tensor, grad: Tensor) -> None:
        """Count one step: the tensor before it, and the gradient of the mean loss by it."""
        sensitivity = (value * grad).abs_()
        self._mean.lerp_(sensitivity, 1 - BETA)
        self._spread.lerp_(sensitivity.sub_(self._mean).abs_(), 1 - BETA)

    def scores(self) -> Tensor:
        """s = Ī·Ū, of the tensor's shape."""
        return self._mean * self._spread


class Triplets:
    """B (m, r), E (r) and A (r, n) of one weight, fp32, with the sensitivity of each.

    In memory they are 6·r·(m + n + 1) fp32 values: parameters, gradients, Adam's two moments, Ī and Ū. With r = 4 that
    is 96 bytes per row and column of the weight, beside the frozen factors that the model runs with.
    """

    def __init__(self, weight: Weight, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(derive_seed(seed, "adalora", weight.name))
        a = START_DEVIATION * torch.randn(ADALORA_RANK, weight.columns, generator=generator)
        b = START_DEVIATION * torch.randn(weight.rows, ADALORA_RANK, generator=generator)
        self.a, self.b, self.e = a.to(device), b.to(device), torch.zeros(ADALORA_RANK, device=device)
        self._sensitivities = [(value, Sensitivity(value)) for value in (self.a, self.b, self.e)]

    def add(self, grad: Tensor, x: Tensor) -> None:
        """Count one backward pass of the summed loss: grad (T, m) by the output, x (T, n) the input, same dtype."""
        # For y += Σ_i E_i·b_i·(a_i·x), with u = gᵀ·B and v = A·x of every token:
        #   ∂L/∂E_i = Σ u_i·v_i,   ∂L/∂A_i = E_i·Σ u_i·x,   ∂L/∂B_i = E_i·Σ v_i·g
        left, right = grad @ self.b.to(grad), x @ self.a.to(x).t()  # u and v, (T, r) each
        _accumulate(self.e, (left * right).float().sum(0))
        _accumulate(self.a, self.e[:, None] * (left.t() @ x).float())
        _accumulate(self.b, (grad.t() @ right).float() * self.e)

    def observe(self, n_target_tokens: int) -> None:
        """Take the gradients, of that many tokens, into the sensitivities. They stay for the step."""
        for value, sensitivity in self._sensitivities:
            if value.grad is not None:
                sensitivity.update(value, value.grad / n_target_tokens)

    def factors(self, dtype: torch.dtype) -> Factors:
        """ΔW as factors b (m, r), a (r, n) in the model's dtype."""
        return Factors((self.b * self.e).to(dtype), self.a.to(dtype))

    def scores(self) -> Tensor:
        """S (r)."""
        a, b, e = (sensitivity.scores() for _, sensitivity in self._sensitivities)
        return e + a.mean(1) + b.mean(0)


class AdaLora:
    """The triplets of all `weights`, and their training: after every step the model's linears get the next ΔW.

    The sketches of the same passes are thus of a model that has begun to learn, but hardly: over 8 steps the builtin
    base's mean loss differed by 5e-6 nats and no weight's sketch by more than 1.5 %.
    """

    def __init__(
        self, weights: Sequence[Weight], linears: Mapping[str, Linear], seed: int, compute: torch.dtype
    ) -> None:
        self._linears = linears
        self._compute = compute
        self.observers = {w.name: Triplets(w, seed, linears[w.name].b.device) for w in weights}
        sides = {f"{name}.{side}": getattr(t, side) for name, t in self.observers.items() for side in ("a", "b", "e")}
        self._adam = Adam(sides, LEARNING_RATE)

    def count(self, n_target_tokens: int) -> None:
        """One step, on the backward passes since the last one, which had so many target tokens."""
        for triplets in self.observers.values():
            triplets.observe(n_target_tokens)
        self._adam.step(n_target_tokens)
        for name, triplets in self.observers.items():
            self._linears[name].set_frozen(triplets.factors(self._compute))

    def scores(self) -> dict[str, float]:
        """Σ_i S_i of every weight, in nats²."""
        return {name: float(triplets.scores().sum()) for name, triplets in self.observers.items()}


def _accumulate(value: Tensor, grad: Tensor) -> None:
    value.grad = grad if value.grad is None else value.grad.add_(grad)
