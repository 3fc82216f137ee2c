"""The gradient sketches of a round or profile: which weights, over which backward passes, and their mean."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edge_client.engine.lora import Linear, Sketch
from wire.checks import basis_rank
from wire.messages import RunInfo


class Sketches:
    """Sketches Y = Ω·G of every weight of the manifest; G is of the mean loss per target token of all that is
    counted.

    Backward passes run on summed losses, so that every token weighs the same whatever batch it came in; `mean` divides.
    """

    def __init__(self, run: RunInfo, seed: int, device: torch.device) -> None:
        self.n_tokens = 0
        self._by_name = {
            weight.name: Sketch(seed, weight, basis_rank(weight, run.max_rank), device) for weight in run.weights
        }

    @property
    def sums(self) -> dict[str, Tensor]:
        """The running sums (R, n) fp32 themselves, by weight."""
        return {name: sketch.sum for name, sketch in self._by_name.items()}

    def attach(self, linears: Mapping[str, Linear]) -> None:
        """Count every backward pass from now on."""
        for name, sketch in self._by_name.items():
            linears[name].start_sketch(sketch)

    def count(self, n_target_tokens: int) -> None:
        """Say how many target tokens the last backward pass had."""
        self.n_tokens += n_target_tokens

    def mean(self) -> dict[str, Tensor]:
        return {name: sketch.sum / self.n_tokens for name, sketch in self._by_name.items()}
