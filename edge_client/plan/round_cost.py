"""Costs of a round beside memory: bytes over the network, and seconds of arithmetic; and limits on them.

Both are reckoned for the worst round, so that a limit holds in every one: texts as long as the run allows, a global
adapter at the server's full rank, gradient sketches asked for, every example new to the cache. Most rounds cost less.

Arithmetic is counted in floating-point operations (edge_client/plan/flops.py); what else a step does with the frozen
base is counted as so many. So modes of training compare on a board whose speed nobody knows, and seconds follow where
it was measured (edge_client/host/matmul_speed.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from msgspec import UNSET

from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import Compute, Format, TrainingMode
from edge_client.jobs.sizes import answers_at_once, ranks_of_own
from edge_client.plan.adapter_memory import begins_at_adapter
from edge_client.plan.cache_budget import CacheBudget, distinct_examples
from edge_client.plan.flops import Lengths, StepFlops, step_flops
from wire.checks import basis_rank
from wire.dtypes import download_dtype, frozen_dtype, sketch_dtype
from wire.fields import Dtype
from wire.manifest import t5_weights
from wire.messages import tensor_bytes
from wire.run import RunInfo, Scope, TrainSettings, Weight, When

EFFICIENCY: Mapping[Compute, float] = {"bf16": 0.5, "fp32": 0.75}
"""Part of the speed of plain products that a training step's products reach, the passes below aside."""

PASS_OPERATIONS: Mapping[Compute, Mapping[Format, int]] = {
    "bf16": {"bf16": 200, "int8": 260, "nf4": 400},
    "fp32": {"fp32": 200, "bf16": 250, "int8": 250, "nf4": 280},
}
"""Operations that take as long as one pass over a frozen value does, whatever the micro-batch: it is read, unpacked and
laid out for the product.

Both tables were fitted to CPU seconds of steps on one thread of an x86-64 machine with avx512_bf16, in units of plain
products timed in the same process: 512/64 tokens, 8 strands on every weight, micro-batches of 1 and 4, FLAN-T5-small's
and base's shapes. What they give is 0.85 to 1.5 of what was measured there and of the times in
docs/results/performance.md. Not known on ARM or a GPU."""

UPDATE_PART_BYTES, ADAPTER_PART_BYTES, NEXT_TENSOR_BYTES = 150, 215, 43
"""Names, keys and shapes of one weight in an update of B with a sketch and in an adapter, and of one tensor more in
either: 149, 213 and 42 of FLAN-T5-xl's longest name, measured on encoded messages."""


@dataclass(frozen=True, slots=True)
class RoundLimits:
    """Limits on one round; None is no limit.

    Attributes:
        round_s: seconds of training, encoding and evaluating.
        round_bytes: downloaded and uploaded together.
        gflops: measured 10⁹ operations per second of plain products, by arithmetic; empty where nobody measured.
    """

    round_s: float | None = None
    round_bytes: int | None = None
    gflops: Mapping[Compute, float] = field(default_factory=dict)


NO_LIMITS = RoundLimits()


# --- bytes ---------------------------------------------------------------------------------------------------------


def frozen_part_dtype(run: RunInfo) -> Dtype:
    """Number format in which frozen factors travel: beside the global adapter's own strands in less than elsewhere."""
    download = download_dtype(run.settings.upload)
    return frozen_dtype(download) if begins_at_adapter(run) else download


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes over the network, to the board and from it."""

    down_bytes: float
    up_bytes: float

    @property
    def total_bytes(self) -> float:
        """Both ways together."""
        return self.down_bytes + self.up_bytes


def round_traffic(run: RunInfo, ranks: Sequence[int], *, frozen_encoder: bool = False) -> Traffic:
    """The most that a round moves where a board trains `ranks` strands of each weight, in manifest order."""
    fixed, strands = _fixed_traffic(run, frozen_encoder=frozen_encoder), _strand_traffic(run)
    return Traffic(
        fixed.down_bytes + sum(rank * strand.down_bytes for rank, strand in zip(ranks, strands, strict=True)),
        fixed.up_bytes + sum(rank * strand.up_bytes for rank, strand in zip(ranks, strands, strict=True)),
    )


def strand_traffic(run: RunInfo) -> list[float]:
    """Bytes that one strand of each weight adds to a round, both ways."""
    return [strand.total_bytes for strand in _strand_traffic(run)]


def fixed_traffic(run: RunInfo, *, frozen_encoder: bool) -> float:
    """Bytes that a round without strands would take, both ways."""
    return _fixed_traffic(run, frozen_encoder=frozen_encoder).total_bytes


def _strand_traffic(run: RunInfo) -> list[Traffic]:
    """One strand of each weight: down its row of the basis, unless boards draw their own; up its column of B,
    and where the run trains A its row of that.

    Where boards begin at the global adapter, strands come in place of frozen factors. An evaluation fetches that whole,
    so it is counted (`_fixed_traffic`), and of strands what they can take beyond it, spread over all of them."""
    settings = run.settings
    down, up = _per_value(download_dtype(settings.upload)), _per_value(settings.upload)
    instead = _per_value(frozen_part_dtype(run))
    costs = []
    for weight in run.weights:
        m, n = weight.rows, weight.columns
        received = 0.0 if settings.own_basis else float(n)
        if begins_at_adapter(run):
            most, frozen = basis_rank(weight, run.max_rank), basis_rank(weight, run.server_rank)
            # What min(most, frozen) strands replace was counted as frozen: that is taken off, spread over all.
            received = (m + n) * (1 - min(most, frozen) / most * instead / down)
        costs.append(Traffic(down * received, up * (m + n if settings.trains_a else m)))
    return costs


def _fixed_traffic(run: RunInfo, *, frozen_encoder: bool) -> Traffic:
    """Traffic of a round without strands: every weight's frozen factors down, a sketch of every weight that the
    backward pass reaches up, and what says which weight is which."""
    more_up = NEXT_TENSOR_BYTES if run.settings.trains_a else 0
    more_down = NEXT_TENSOR_BYTES if begins_at_adapter(run) else 0
    down_bytes = up_bytes = 0
    for weight in run.weights:
        frozen = basis_rank(weight, run.server_rank)
        down_bytes += _bytes(frozen_part_dtype(run), frozen * (weight.rows + weight.columns))
        down_bytes += ADAPTER_PART_BYTES + more_down
        if not (frozen_encoder and weight.is_encoder):
            sketch = basis_rank(weight, run.max_rank)
            up_bytes += _bytes(sketch_dtype(run.settings.upload), sketch * weight.columns)
            up_bytes += UPDATE_PART_BYTES + more_up
    return Traffic(down_bytes, up_bytes)


def _bytes(dtype: Dtype, values: int) -> int:
    return sum(tensor_bytes(dtype, values))


def _per_value(dtype: Dtype) -> float:
    """Bytes per value of a long tensor."""
    many = 1 << 20
    return _bytes(dtype, many) / many


# --- seconds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnswerWork:
    """The work of a round that learns from rewards beyond that of one that learns from right answers.

    Attributes:
        samples: answers to each example; 1 where the right ones are read.
        reuse: optimiser steps on the same answers.
        forward_passes: of each answer and step beside the training: its writing, and its likelihood under the received
            adapter and under the policy that wrote it, where these are asked for.
    """

    samples: int
    reuse: int
    forward_passes: float

    @classmethod
    def of(cls, settings: TrainSettings) -> AnswerWork:
        """The work of a run's dearer rounds."""
        learning = settings.reward
        if learning is UNSET:
            return cls(1, 1, 0.0)
        n_passes = 1 + (learning.kl > 0) + (learning.reuse > 1)
        return cls(learning.samples, learning.reuse, n_passes / learning.reuse)


class RoundWork:
    """Floating-point operations of a round, by mode of training."""

    def __init__(self, base: T5Config, run: RunInfo, cache: CacheBudget) -> None:
        self._base, self._run, self._cache = base, run, cache
        self._ranks = {weight.name: basis_rank(weight, run.max_rank) for weight in run.weights}
        self._frozen_ranks = {weight.name: basis_rank(weight, run.server_rank) for weight in run.weights}
        self._answers = AnswerWork.of(run.settings)
        self._n_train = run.settings.batch * run.settings.local_steps * self._answers.samples
        beside, after = (ranks_of_own(run, when, trains_encoder=True) for when in get_args(When))
        self._beside, self._after = (dict(zip(self._ranks, ranks, strict=True)) for ranks in (beside, after))
        self._n_own = run.own_steps * run.settings.batch
        # With local strands a received adapter is evaluated with them and without.
        self._n_evaluations = (2 if any(run.local_ranks) else 1) * cache.n_evaluated
        self._steps: dict[tuple[Scope, str], StepFlops] = {}
        values = {"encoder": 0, "decoder": 0}
        for weight in t5_weights(base, "all"):
            values[weight.name.split(".")[0]] += weight.rows * weight.columns
        self._encoder_values, self._decoder_values = values["encoder"], values["decoder"]

    def operations(self, mode: TrainingMode) -> float:
        """Operations of a round that trains every strand; the encoder's output is in the cache, where there is one."""
        every = self._products(mode, self._step(self._scope(mode))) + self._passes(mode)
        return every + (self._steps_of_own(mode) if self._n_own else 0.0)

    def encoding(self, mode: TrainingMode) -> float:
        """Operations more of a round whose examples are all new to the cache; 0 without one."""
        step = self._step(self._scope(mode))
        return 0.0 if mode.cache == "none" else float(step.encode * distinct_examples(self._run, self._cache))

    def strand_operations(self, mode: TrainingMode) -> list[float]:
        """Operations that one strand of each weight adds to a round: the difference that leaving a weight out makes,
        reckoned once for all weights of a shape that read the same tokens."""
        every = self._products(mode, self._step(self._scope(mode)))
        by_kind: dict[tuple[int, int, bool], float] = {}
        for weight in reversed(self._run.weights):  # the last blocks: gradients pass through all of their weights
            if kind_of(weight) not in by_kind:
                without = self._products(mode, self._step(self._scope(mode), without=weight.name))
                by_kind[kind_of(weight)] = (every - without) / self._ranks[weight.name]
        return [by_kind[kind_of(weight)] for weight in self._run.weights]

    def _scope(self, mode: TrainingMode) -> Scope:
        return "decoder" if mode.frozen_encoder else self._run.settings.scope

    def _step(self, scope: Scope, without: str = "") -> StepFlops:
        """Operations of a step on one example, with all strands of every weight of the scope but `without`'s."""
        if (scope, without) not in self._steps:
            settings = self._run.settings
            ranks = {name: (0 if name == without else rank) + self._beside[name] for name, rank in self._ranks.items()}
            if scope == "decoder":
                ranks = {name: rank for name, rank in ranks.items() if name.startswith("decoder.")}
            lengths = Lengths(1, settings.max_source_tokens, settings.max_target_tokens)
            self._steps[scope, without] = step_flops(
                self._base, scope, lengths, ranks, self._frozen_ranks, trains_a=settings.trains_a
            )
        return self._steps[scope, without]

    def _products(self, mode: TrainingMode, step: StepFlops) -> float:
        encodes = step.encode if self._scope(mode) == "decoder" else 0
        again = step.forward - step.head_gradient if mode.checkpointing else 0  # the head is not computed twice
        training, evaluating = step.step + again, step.forward
        if mode.cache == "none":
            training, evaluating = training + encodes, evaluating + encodes
        n_forward = self._n_train * self._answers.forward_passes + self._n_evaluations
        return float(self._n_train * training + n_forward * evaluating)

    def _steps_of_own(self, mode: TrainingMode) -> float:
        """Operations of the steps that local strands have to themselves, over a global adapter that is frozen."""
        scope, settings = self._scope(mode), self._run.settings
        ranks = {name: rank for name, rank in self._after.items() if scope == "all" or name.startswith("decoder.")}
        lengths = Lengths(1, settings.max_source_tokens, settings.max_target_tokens)
        step = step_flops(self._base, scope, lengths, ranks, self._frozen_ranks, trains_a=True)
        encodes = step.encode if scope == "decoder" and mode.cache == "none" else 0
        again = step.forward - step.head_gradient if mode.checkpointing else 0
        products = self._n_own * (step.step + again + encodes)
        return float(products) + self._passes_of(mode, self._run.own_steps * -(-settings.batch // mode.micro_batch))

    def _passes(self, mode: TrainingMode) -> float:
        """Operations that passes over the frozen base count for in the steps of the global strands."""
        settings, answers = self._run.settings, self._answers
        n_micro_batches = settings.local_steps * -(-settings.batch * answers.samples // mode.micro_batch)
        n_forward = n_micro_batches * answers.forward_passes + self._tokens_written(mode)
        reading = PASS_OPERATIONS[mode.compute][mode.format] * self._decoder_values + self._head_operations(mode)
        return self._passes_of(mode, n_micro_batches) + n_forward * reading

    def _passes_of(self, mode: TrainingMode, n_micro_batches: int) -> float:
        """The same of so many micro-batches. Each goes over every trained block forth and back, once more where it is
        computed again; over a frozen encoder forth; over the head once."""
        passes = 3 if mode.checkpointing else 2
        if self._scope(mode) == "all":
            blocks = passes * (self._encoder_values + self._decoder_values)
        else:
            blocks = passes * self._decoder_values + (self._encoder_values if mode.cache == "none" else 0)
        per_value = PASS_OPERATIONS[mode.compute][mode.format]
        return float(n_micro_batches * (per_value * blocks + self._head_operations(mode)))

    def _head_operations(self, mode: TrainingMode) -> int:
        """Operations of a pass over the head, which nf4 keeps in int8."""
        values = self._base.vocab_size * self._base.d_model
        return values * PASS_OPERATIONS[mode.compute]["int8" if mode.format == "nf4" else mode.format]

    def _tokens_written(self, mode: TrainingMode) -> float:
        """Passes over the decoder in which answers are written, each a token of those that are written side by side."""
        settings, answers = self._run.settings, self._answers
        if not answers.forward_passes:
            return 0.0
        tokens = settings.max_source_tokens, settings.max_target_tokens
        at_once = answers_at_once(self._base, *tokens, 4 if mode.compute == "fp32" else 2)
        n_groups = -(-settings.batch * answers.samples // at_once)
        return n_groups * settings.max_target_tokens * settings.local_steps / answers.reuse


def operations_per_s(compute: Compute, limits: RoundLimits) -> float:
    """Speed that a training step reaches of the board's measured one; 0 where that is not known."""
    return limits.gflops.get(compute, 0.0) * 1e9 * EFFICIENCY[compute]


def kind_of(weight: Weight) -> tuple[int, int, bool]:
    """Weights of a kind cost the same per strand: they have the same shape and read the same tokens, the source's
    (True) or the target's."""
    return weight.rows, weight.columns, weight.reads_source
