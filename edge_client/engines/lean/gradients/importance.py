"""Importance of each weight for a board's own text: the three scores that a run may choose from (`train.importance`).

    sketch               Σσ² of the gradient sketch Y = Ω·G, an estimate of ‖G‖² (Achlioptas 2003, wire/projection.py);
                         of a strand σ². The server computes it from the sketches, so boards send no score.
    adalora              SVD and sensitivity, FedPipe's choice: edge_client/engines/lean/gradients/adalora.py
    magnitude_gradient   Σ|W∘G|: edge_client/engines/lean/gradients/magnitude_gradient.py

None of them stores a weight's gradient G (m, n). Scores come from the same backward passes as the sketches, and mean
something only beside those of the board's other weights: the server divides them by their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from edge_client.engines.lean.gradients.adalora import AdaLora
from edge_client.engines.lean.gradients.magnitude_gradient import MagnitudeGradient
from edge_client.engines.lean.model.lora import Observer
from edge_client.engines.lean.model.model import DTYPES, Model
from edge_client.jobs.messages import ProfileJob
from quantize.base import FrozenBase
from wire.run import Weight


class Scores(Protocol):
    """Scores of some weights, gathered over backward passes."""

    @property
    def observers(self) -> Mapping[str, Observer]:
        """The observers that must see each weight's backward passes, by weight."""

    def count(self, n_target_tokens: int) -> None:
        """Call after the backward passes of a step, with its target tokens."""

    def scores(self) -> dict[str, float]:
        """The score of each weight, at least 0, whatever number of tokens was counted."""


@dataclass(frozen=True, slots=True)
class _Both:
    """Two observers of one weight."""

    first: Observer
    second: Observer

    def add(self, grad: Tensor, x: Tensor) -> None:
        self.first.add(grad, x)
        self.second.add(grad, x)


def observe_scores(job: ProfileJob, weights: Sequence[Weight], model: Model, base: FrozenBase) -> Scores | None:
    """Score `weights` as the job's run says from the model's next backward pass on; None where it says "sketch".

    What observes the model's linears already, their sketches, goes on. With "adalora" the model's frozen
    factors are replaced after every pass: use it for nothing else.
    """
    importance = job.run.settings.importance
    if importance == "sketch":
        return None
    scores: Scores
    if importance == "adalora":
        scores = AdaLora(weights, model.linears, job.spec.seed, DTYPES[job.plan.mode.compute])
    else:
        scores = MagnitudeGradient(weights, base.weights)
    for name, observer in scores.observers.items():
        linear = model.linears[name]
        linear.start_sketch(observer if linear.sketch is None else _Both(linear.sketch, observer))
    return scores
