"""Keeping what the fleet knows: a penalty on how far a board moves the directions that matter to the received model.

    λ/2 · Σ J_θ·(θ - θ₀)²          θ every trained value of B and A, θ₀ as it was received

FedJudge (arXiv 2309.08173, section 3.3, after EWC, arXiv 1612.00796). Its released code compares values that are
detached with an alias of themselves, so that its term is zero and has no gradient; this one is held against autograd
(tests/edge_client/engines/lean/gradients/test_keep.py).

J says how much a value matters, and is 1 on average over all values that are trained, so that λ means the same in every
run. By "fisher" it is the diagonal of the empirical Fisher information at θ₀: the squares of the gradients of the
round's first step, a micro-batch at a time, which are those of the received model, for nothing has moved yet. They are
there anyway. By "scores" it is what the fleet has found of each strand: the run's ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wire.run import RunInfo


class Keep:
    """The penalty of one round.

    Args:
        values: what is trained by name, "b.NAME" and "a.NAME", as it was received.
        weight: λ, beside a mean loss per target token.
        scores: J by name, to be spread over a value's shape; None where the round's first gradients give it.
    """

    def __init__(self, values: Mapping[str, Tensor], weight: float, scores: Mapping[str, Tensor] | None = None) -> None:
        self._values, self._weight = values, weight
        self._begun = {name: value.detach().clone() for name, value in values.items()}
        self._observes = scores is None
        self.importance = (
            {name: torch.zeros_like(value, requires_grad=False) for name, value in values.items()}
            if scores is None
            else dict(scores)
        )
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(self) -> None:
        """Count the gradients of one micro-batch of the first step; they wait in `gather`."""
        if not self._observes:
            return
        for name, value in self._values.items():
            if value.grad is None:
                continue
            self.importance[name].addcmul_(value.grad, value.grad)
            if name in self._sums:
                self._sums[name].add_(value.grad)
            else:
                self._sums[name] = value.grad
            value.grad = None

    def gather(self) -> None:
        """End the first step's backward passes: the gradients of all of them are there again, and J is known."""
        if not self._observes or not self._sums:
            return
        for name, total in self._sums.items():
            self._values[name].grad = total
        self._sums = {}
        mean = sum(float(j.sum()) for j in self.importance.values()) / sum(j.numel() for j in self.importance.values())
        for importance in self.importance.values():
            importance.div_(mean if mean > 0 else 1.0)

    @torch.no_grad()
    def add_gradients(self, n_tokens: int) -> None:
        """Add the penalty's gradients λ·J·(θ - θ₀) to those of a loss summed over `n_tokens`. They are no part of the
        loss told."""
        for name, value in self._values.items():
            if value.grad is not None:
                moved = value - self._begun[name]
                value.grad.addcmul_(moved, self.importance[name], value=self._weight * n_tokens)

    def tensors(self) -> dict[str, Tensor]:
        """The values themselves that a saved training holds: J, where the board has found it."""
        return {f"importance.{name}": j for name, j in self.importance.items()} if self._observes else {}


def scores_of(run: RunInfo, ranks: Sequence[int], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """J by the run's ranking, for values "b.NAME" (m, r) and "a.NAME" (r, n): of each strand what the fleet found that
    it is worth, 1 on average over all values; 1 for all where there is no ranking yet."""
    worth = {weight.name: torch.ones(rank) for weight, rank in zip(run.weights, ranks, strict=True)}
    for weight, rank, known in zip(run.weights, ranks, run.values, strict=False):
        worth[weight.name] = torch.tensor(known[:rank], dtype=torch.float32)
    of_values = {}
    for name, value in values.items():
        side, weight_name = name.split(".", 1)
        strands = worth[weight_name].to(value.device)
        of_values[name] = strands[None, :] if side == "b" else strands[:, None]
    total = sum(float(j.sum()) * (values[name].numel() / j.numel()) for name, j in of_values.items())
    mean = total / max(1, sum(value.numel() for value in values.values()))
    return {name: j / mean if mean > 0 else torch.ones_like(j) for name, j in of_values.items()}
