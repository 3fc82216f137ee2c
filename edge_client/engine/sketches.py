"""The gradient sketches of a round or profile: which weights, over which backward passes, and their mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_client.engine.lora import Linear, Observer
from wire.checks import basis_rank
from wire.messages import RunInfo, Weight
from wire.projection import projection

READ_TOGETHER = {
    "SelfAttention": ("q", "k", "v"),
    "DenseReluDense": ("wi_0", "wi_1"),
}
"""Matrices of one layer that read the same input."""


class InputSketch:
    """Running sums Y = Ω·G (R, n) fp32 of the weights that read one input x (T, n), one below the other.

    G = Σ gᵀx (m, n) is never formed: gradients g (T, m) are projected to P = Ω·gᵀ (R, T), which wait until those of
    all the weights are there. Then one product [P; …; P]·x serves all of them: with 16 rows each, that of three weights
    takes less than twice as long as that of one.

    What waits is counted when all weights came, when one comes again or with another input, and on `flush`: weights
    that a pass does not reach, and an input that is not shared after all, cost time and not correctness.

    In memory: the sums, and from the first backward pass on Ω (R, m) of every weight in the dtype of the gradients.
    """

    def __init__(self, weights: Sequence[Weight], rank: int, seed: int, device: torch.device) -> None:
        self._weights = weights
        self._rank = rank
        self._seed = seed
        self._sum = torch.zeros(len(weights) * rank, weights[0].columns, device=device)
        self._signs: dict[str, Tensor] = {}
        self._waiting: dict[str, Tensor] = {}
        self._x: Tensor | None = None

    @property
    def sums(self) -> dict[str, Tensor]:
        """The running sums (R, n) themselves, by weight, with all that was added."""
        self.flush()
        each = self._sum.view(len(self._weights), self._rank, -1)
        return {weight.name: rows for weight, rows in zip(self._weights, each, strict=True)}

    @property
    def observers(self) -> dict[str, Observer]:
        """By weight: what must see its backward passes."""
        return {weight.name: _OfWeight(self, weight) for weight in self._weights}

    def add(self, weight: Weight, grad: Tensor, x: Tensor) -> None:
        """Count one backward pass through `weight`, as Observer.add does."""
        if weight.name in self._waiting or (self._x is not None and not _is_same(self._x, x)):
            self.flush()
        self._x = x
        self._waiting[weight.name] = self._signs_of(weight, grad) @ grad.t()
        if len(self._waiting) == len(self._weights):
            self.flush()

    def flush(self) -> None:
        """Count what waits, and keep x no longer."""
        if self._x is None:
            return
        x, waiting = self._x, self._waiting
        self._x, self._waiting = None, {}
        if missing := [weight.name for weight in self._weights if weight.name not in waiting]:
            waiting |= dict.fromkeys(missing, torch.zeros_like(next(iter(waiting.values()))))
        stack = [waiting[weight.name] for weight in self._weights]
        projected = torch.cat(stack) if len(stack) > 1 else stack[0]
        self._sum.add_(projected @ x, alpha=self._rank**-0.5)

    def _signs_of(self, weight: Weight, grad: Tensor) -> Tensor:
        """√R·Ω (R, m): ±1 is exact in bf16, ±1/√R is not."""
        if weight.name not in self._signs:
            omega = torch.from_numpy(projection(self._seed, weight.name, self._rank, weight.rows))
            self._signs[weight.name] = omega.sign_().to(grad)
        return self._signs[weight.name]


@dataclass(frozen=True, slots=True)
class _OfWeight:
    sketch: InputSketch
    weight: Weight

    def add(self, grad: Tensor, x: Tensor) -> None:
        self.sketch.add(self.weight, grad, x)


class Sketches:
    """Sketches Y = Ω·G of every weight of the manifest; G is of the mean loss per target token of all that is
    counted.

    Backward passes run on summed losses, so that every token weighs the same whatever batch it came in; `mean` divides.
    """

    def __init__(self, run: RunInfo, seed: int, device: torch.device) -> None:
        self.n_tokens = 0
        self._names = [weight.name for weight in run.weights]
        self._inputs = input_sketches(run.weights, run.max_rank, seed, device)

    @property
    def sums(self) -> dict[str, Tensor]:
        """The running sums (R, n) fp32 themselves, by weight, with all that was added."""
        found = {name: rows for inputs in self._inputs for name, rows in inputs.sums.items()}
        return {name: found[name] for name in self._names}

    def attach(self, linears: Mapping[str, Linear]) -> None:
        """Count every backward pass from now on."""
        for inputs in self._inputs:
            for name, observer in inputs.observers.items():
                linears[name].start_sketch(observer)

    def count(self, n_target_tokens: int) -> None:
        """Say that a backward pass is over, and how many target tokens it had."""
        for inputs in self._inputs:
            inputs.flush()
        self.n_tokens += n_target_tokens

    def mean(self) -> dict[str, Tensor]:
        return {name: rows / self.n_tokens for name, rows in self.sums.items()}


def input_sketches(weights: Iterable[Weight], max_rank: int, seed: int, device: torch.device) -> list[InputSketch]:
    """Sketches of `weights`, of at most `max_rank` rows each, those that read the same input together."""
    groups: dict[tuple[str, int], list[Weight]] = {}
    for weight in weights:
        groups.setdefault((_input_of(weight.name), basis_rank(weight, max_rank)), []).append(weight)
    return [InputSketch(group, rank, seed, device) for (_, rank), group in groups.items()]


def _input_of(name: str) -> str:
    """The same text for weights that read the same tensor, as T5 does: queries, keys and values of one layer, its gate
    and value, and the keys and values of all cross-attentions, which read the encoder's output."""
    layer, _, matrix = name.rpartition(".")
    kind = layer.rpartition(".")[2]
    if kind == "EncDecAttention" and matrix in ("k", "v"):
        return "the encoder's output"
    return layer if matrix in READ_TOGETHER.get(kind, ()) else name


def _is_same(x: Tensor, y: Tensor) -> bool:
    """Whether both are the same memory: autograd may hand out one tensor as several objects."""
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()
