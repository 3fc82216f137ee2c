"""Gradient sketches: Y = Ω·G of every weight's gradient G, a few random combinations of its rows, summed over passes.

Ω is the random projection of `wire.projection`, which the server can draw too. From the boards' sketches it makes the
next basis: the directions in which the loss would still fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_client.engines.lean.model.lora import Linear, Observer
from wire.checks import basis_rank
from wire.projection import projection
from wire.run import RunInfo, TrainSettings, Weight

READ_TOGETHER = {
    "SelfAttention": ("q", "k", "v"),
    "DenseReluDense": ("wi_0", "wi_1"),
}
"""Matrices of one layer that read the same input."""

TURNS = 4
"""A round sketches the weights of every fourth block in each of four times as many backward passes. Each weight sees as
many as it would alone, spread over more of the text, and no pass is longer by more than a quarter of a whole sketch."""


@dataclass(frozen=True, slots=True)
class SketchWindow:
    """The backward passes of a round that feed its sketches: its last ones, which show what is left to learn.

    Passes are counted in the run's micro-batches, from the `first` on, each for one of `n_turns` in turn. So the window
    is the same on every board, whatever its own micro-batch, and stays so where that changes in a round.
    """

    first: int
    n_turns: int
    batch: int
    micro_batch: int

    @classmethod
    def of(cls, settings: TrainSettings) -> SketchWindow:
        """The window of a run. A round too short for turns has one alone."""
        n_passes = settings.local_steps * -(-settings.batch // settings.micro_batch)
        n_turns = TURNS if TURNS * settings.sketch_batches <= n_passes else 1
        first = max(0, n_passes - n_turns * settings.sketch_batches)
        return cls(first, n_turns, settings.batch, settings.micro_batch)

    def turn(self, place: int) -> int | None:
        """Whose turn it is in a backward pass of the round's examples from `place` on; None before the window."""
        # A step's last micro-batch may be short, so passes are counted step by step.
        step, place_in_step = divmod(place, self.batch)
        n_before = step * -(-self.batch // self.micro_batch) + place_in_step // self.micro_batch
        return n_before % self.n_turns if n_before >= self.first else None


class InputSketch:
    """Running sums Y = Ω·G (R, n) fp32 of the weights that read one input x (T, n), stacked one below the other.

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
        """The observers that must see each weight's backward passes, by weight."""
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
        # A weight that the pass did not reach adds rows of zeros, so that the stack keeps its shape.
        if missing := [weight.name for weight in self._weights if weight.name not in waiting]:
            waiting |= dict.fromkeys(missing, torch.zeros_like(next(iter(waiting.values()))))
        stack = [waiting[weight.name] for weight in self._weights]
        projected = torch.cat(stack) if len(stack) > 1 else stack[0]
        # Ω's entries are ±1/√R; signs alone were multiplied, so 1/√R is left to do.
        self._sum.add_(projected @ x, alpha=self._rank**-0.5)

    def _signs_of(self, weight: Weight, grad: Tensor) -> Tensor:
        """√R·Ω (R, m): ±1 is exact in bf16, ±1/√R is not."""
        if weight.name not in self._signs:
            omega = torch.from_numpy(projection(self._seed, weight.name, self._rank, weight.rows))
            self._signs[weight.name] = omega.sign_().to(grad)
        return self._signs[weight.name]


@dataclass(frozen=True, slots=True)
class _OfWeight:
    """The part of one weight in an InputSketch."""

    sketch: InputSketch
    weight: Weight

    def add(self, grad: Tensor, x: Tensor) -> None:
        self.sketch.add(self.weight, grad, x)


class _Nobody:
    """An observer that counts nothing, for weights whose turn it is not. Their input is kept for backward all the same:
    a plan's memory is reckoned with it, and stays the same from pass to pass."""

    def add(self, grad: Tensor, x: Tensor) -> None:
        pass


_NOBODY = _Nobody()


class Sketches:
    """Sketches Y = Ω·G of `weights`, of at most `max_rank` rows each.

    G is the gradient of the mean loss per target token, over all passes that are counted for the weight.

    Backward passes run on summed losses, so that every token weighs the same whatever batch it came in; `mean` divides.
    With several turns a pass counts for the blocks whose turn it is. `n_tokens` are the target tokens so far, by turn.
    """

    def __init__(
        self, weights: Sequence[Weight], max_rank: int, seed: int, device: torch.device, n_turns: int = 1
    ) -> None:
        self.n_tokens = [0] * n_turns
        self._names = [weight.name for weight in weights]
        turns: list[list[Weight]] = [[] for _ in range(n_turns)]
        for weight in weights:
            turns[_block(weight.name) % n_turns].append(weight)
        self._turns = [input_sketches(several, max_rank, seed, device) for several in turns]

    @property
    def sums(self) -> dict[str, Tensor]:
        """The running sums (R, n) fp32 themselves, by weight, with all that was added."""
        by_name = {name: rows for turn in self._turns for inputs in turn for name, rows in inputs.sums.items()}
        return {name: by_name[name] for name in self._names}

    def attach(self, linears: Mapping[str, Linear], turn: int = 0) -> None:
        """Count every backward pass from now on for the weights of a turn, and for no other."""
        for place, several in enumerate(self._turns):
            for inputs in several:
                for name, observer in inputs.observers.items():
                    linears[name].start_sketch(observer if place == turn else _NOBODY)

    def count(self, n_target_tokens: int, turn: int = 0) -> None:
        """Say that a backward pass of that turn is over, and how many target tokens it had."""
        for inputs in self._turns[turn]:
            inputs.flush()
        self.n_tokens[turn] += n_target_tokens

    def mean(self) -> dict[str, Tensor]:
        """The sketches (R, n) fp32 of the mean loss per target token, by weight."""
        n_turns = len(self._turns)
        return {name: rows / self.n_tokens[_block(name) % n_turns] for name, rows in self.sums.items()}


class RoundSketches:
    """The sketches of one training round, fed by the backward passes of its window.

    Args:
        run: with the weights alone that are sketched.
        seed: the round's.
        device: that trains.
    """

    def __init__(self, run: RunInfo, seed: int, device: torch.device) -> None:
        self._window = SketchWindow.of(run.settings)
        self._sketches = Sketches(run.weights, run.max_rank, seed, device, self._window.n_turns)
        self._turn: int | None = None

    def start_pass(self, linears: Mapping[str, Linear], first: int) -> None:
        """Let the next backward pass through `linears` be counted, if it is in the window. `first`: how many examples
        the round has seen before it."""
        self._turn = self._window.turn(first)
        if self._turn is not None:
            self._sketches.attach(linears, self._turn)

    def end_pass(self, n_target_tokens: int) -> None:
        """The backward pass is over; it had so many target tokens."""
        if self._turn is not None:
            self._sketches.count(n_target_tokens, self._turn)

    def mean(self) -> dict[str, Tensor]:
        """The sketches (R, n) fp32 of the mean loss per target token, by weight."""
        return self._sketches.mean()

    @property
    def sums(self) -> dict[str, Tensor]:
        """The running sums (R, n) fp32 themselves, by weight."""
        return self._sketches.sums

    @property
    def has_begun(self) -> bool:
        """Whether a pass was counted."""
        return any(self._sketches.n_tokens)

    @property
    def numbers(self) -> dict[str, float]:
        """The target tokens so far, by name, for a saved training."""
        return {_tokens_of(turn): float(n) for turn, n in enumerate(self._sketches.n_tokens)}

    def set_numbers(self, numbers: Mapping[str, float]) -> None:
        """Take over the `numbers` of a saved training; what is not in them is 0."""
        self._sketches.n_tokens = [int(numbers.get(_tokens_of(turn), 0)) for turn in range(self._window.n_turns)]


def _tokens_of(turn: int) -> str:
    return f"sketch_tokens.{turn}"


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


def _block(name: str) -> int:
    """The number of a weight's block in its stack."""
    return int(name.split(".")[2])
