"""Peak memory of the training worker, predicted from shapes alone, part by part.

The tensors are counted in edge_client/plan/step_memory.py and adapter_memory.py. Lengths are the run's limits; shorter
texts need less. Constants that no formula gives were measured on the engine and name the measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import msgspec
from msgspec import UNSET

from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import Device, TrainingMode
from edge_client.jobs.reward_spec import ModelReward, OverlapReward, Reward
from edge_client.jobs.sizes import CUDA_CONTEXT_BYTES, IMPORTS_BYTES, ranks_of_own
from edge_client.plan.step_memory import TensorSizes
from wire.run import RunInfo

KERNELS_BYTES = {"fp32": 28 << 20, "bf16": 52 << 20}
"""Code and scratch that training brings in and keeps. bf16 products on x86 are compiled by oneDNN as they come.
Measured as what a round leaves behind, of bases from 15 to 290 MiB: fp32 25 to 29, bf16 48 to 55 MiB."""

FORWARD_KERNELS_BYTES = {"fp32": 14 << 20, "bf16": 30 << 20}
"""Of these, what the encoding pass brings in, which goes forward only. Measured as what its tensors leave unexplained:
bf16 26 to 42 MiB (builtin to large shape), fp32 7 to 28."""


OVERLAP_BYTES = 80 << 20
"""What rouge_score brings in with nltk and the rest that it imports. Measured: 75 MiB beyond a worker's imports."""

SLACK_SHARE = 0.10
"""Added to everything else for holes in the heap, which grow where lengths vary, and for what the measurements of
benchmarks/memory/prediction.py leave unexplained: a plan that is too careful loses strands, one that is not loses the
round."""


SOMETIMES = ("encoding_bytes", "local_bytes", "after_bytes", "judges_bytes")
"""Parts of a Breakdown that most boards do not have."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Predicted peak of the worker, in bytes.

    Attributes:
        imports_bytes: interpreter, torch and tokenizer.
        kernels_bytes: what torch loads and compiles when it first computes, CUDA's context included.
        base_bytes: the frozen base in its format; with a cache of encoder outputs without its encoder.
        frozen_adapter_bytes: factors of the global adapter, frozen, in the compute dtype.
        strands_bytes: values that are trained (B, and A where the run trains it) with gradients and Adam moments, and
            basis rows that are not.
        local_bytes: strands of this board alone that are trained beside the global ones, with gradients and moments.
        sketch_bytes: gradient sketches, R × n fp32 of each weight.
        activations_bytes: what the backward pass needs of one micro-batch, kept layer inputs of a sketch included.
        working_bytes: the largest of the short-lived sets: unpacked weight with gradients, scores or logits; or what
            the adapter takes while it is read, or the round's message while it is written, above the activations.
        slack_bytes: allocator overhead.
        encoding_bytes: what the encoding pass, which comes before training, needs more than all of the above.
        after_bytes: what local strands need more than all of the above in steps of their own.
        judges_bytes: what is loaded to judge answers, in a run that learns from rewards.
    """

    imports_bytes: int
    kernels_bytes: int
    base_bytes: int
    frozen_adapter_bytes: int
    strands_bytes: int
    sketch_bytes: int
    activations_bytes: int
    working_bytes: int
    slack_bytes: int
    encoding_bytes: int = 0
    local_bytes: int = 0
    after_bytes: int = 0
    judges_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Name (as above) to bytes; those that only some rounds have where they are not zero: encoding only where it
        needs more than training."""
        return {name: size for name, size in asdict(self).items() if size or name not in SOMETIMES}


def predict_peak(
    base: T5Config, run: RunInfo, mode: TrainingMode, ranks: Sequence[int], rewards: Sequence[Reward] = ()
) -> Breakdown:
    """Predict the peak of a training round that also sketches, and of the profile before it; evaluations stay below.

    With a cache there are two phases, encoding and then training without the encoder; the larger counts.

    Args:
        base: sizes of the base model.
        run: the run; its longest texts and largest adapter count.
        mode: how the board trains.
        ranks: strands per weight in manifest order, 0 for the encoder's where it is frozen.
        rewards: what the board judges answers by; counted where the run learns from rewards.

    Returns:
        The peak of the worker's resident memory in bytes, part by part.
    """
    sizes = TensorSizes(base, run, mode)
    reads_cache = mode.cache != "none"
    activations, adapter = sizes.activations(ranks), sizes.adapter
    without_activations = adapter.whole(ranks), adapter.start(ranks), adapter.end(ranks)
    stepping = sizes.working(encodes=not reads_cache) + max(0, adapter.profile(ranks))
    rewards = () if run.settings.reward is UNSET else rewards
    training = _with_slack(
        imports_bytes=IMPORTS_BYTES,
        kernels_bytes=KERNELS_BYTES[mode.compute] + _cuda_bytes(mode.device),
        base_bytes=sizes.base(encoder=not reads_cache),
        frozen_adapter_bytes=adapter.frozen(ranks),
        strands_bytes=adapter.strands(ranks),
        local_bytes=adapter.beside(ranks),
        sketch_bytes=adapter.sketches(),
        activations_bytes=activations,
        # While the adapter is read or sent there are no activations: only what exceeds them counts.
        working_bytes=max(stepping, max(*without_activations, _judged(sizes, rewards)) - activations),
        judges_bytes=_judges(rewards),
    )
    if reads_cache:
        encoding = predict_encoding(base, run, mode)
        training = replace(training, encoding_bytes=max(0, encoding.total_bytes - training.total_bytes))
    after_bytes = _after_bytes(base, run, mode)
    return replace(training, after_bytes=max(0, after_bytes - training.total_bytes)) if after_bytes else training


def _after_bytes(base: T5Config, run: RunInfo, mode: TrainingMode) -> int:
    """Peak of the steps that local strands have to themselves, over a global adapter that is frozen; 0 where there are
    none. They train both factors, are not sketched and not sent."""
    ranks = ranks_of_own(run, "after", trains_encoder=run.settings.scope == "all" and not mode.frozen_encoder)
    if not any(ranks):
        return 0
    settings = msgspec.structs.replace(run.settings, personal=UNSET, trains_a=True, own_basis=True, importance="sketch")
    sizes = TensorSizes(base, msgspec.structs.replace(run, settings=settings), mode)
    reads_cache = mode.cache != "none"
    activations, adapter = sizes.activations(ranks), sizes.adapter
    return _with_slack(
        imports_bytes=IMPORTS_BYTES,
        kernels_bytes=KERNELS_BYTES[mode.compute] + _cuda_bytes(mode.device),
        base_bytes=sizes.base(encoder=not reads_cache),
        frozen_adapter_bytes=adapter.frozen(ranks),
        strands_bytes=adapter.strands(ranks),
        sketch_bytes=0,
        activations_bytes=activations,
        working_bytes=max(sizes.working(encodes=not reads_cache), adapter.start(ranks) - activations),
    ).total_bytes


def predict_kept(base: T5Config, run: RunInfo, mode: TrainingMode, ranks: Sequence[int]) -> int:
    """Predict what a mode with a cache takes beyond `predict_peak` where the whole base stays loaded from job to job.

    Training holds the encoder besides; the encoding pass holds all of the base in a block's place, and what training
    has brought in.
    """
    sizes, whole = TensorSizes(base, run, mode), predict_peak(base, run, mode, ranks)
    encoder_bytes = sizes.base() - sizes.base(encoder=False)
    more_kernels = KERNELS_BYTES[mode.compute] - FORWARD_KERNELS_BYTES[mode.compute]
    training = whole.total_bytes - whole.encoding_bytes + int((1 + SLACK_SHARE) * encoder_bytes)
    encoding = predict_encoding(base, run, mode).total_bytes + int((1 + SLACK_SHARE) * (sizes.base() + more_kernels))
    return max(training, encoding) - whole.total_bytes


def strand_marginal_bytes(base: T5Config, run: RunInfo, mode: TrainingMode) -> tuple[int, ...]:
    """The most that one more strand of each weight (manifest order) adds to `predict_peak`, in bytes, at any ranks.

    The peak is the largest of a few sums, each of them linear in the ranks (with checkpointing there is one for each
    block), and so convex in them: peak(ranks) ≤ peak(zeros) + Σ rank · marginal. Where one moment is the worst at both
    ends and each strand adds most to that moment, the two sides are equal to rounding.
    """
    sizes = TensorSizes(base, run, mode)
    return tuple(math.ceil((1 + SLACK_SHARE) * sizes.strand(weight)) for weight in run.weights)


def predict_encoding(base: T5Config, run: RunInfo, mode: TrainingMode) -> Breakdown:
    """Predict the peak of the pass of the frozen encoder that fills a cache, before anything else is loaded."""
    sizes = TensorSizes(base, run, mode)
    return _with_slack(
        imports_bytes=IMPORTS_BYTES,
        kernels_bytes=FORWARD_KERNELS_BYTES[mode.compute] + _cuda_bytes(mode.device),
        base_bytes=sizes.encoder_block(),
        frozen_adapter_bytes=0,
        strands_bytes=0,
        sketch_bytes=0,
        activations_bytes=sizes.hidden_states(),
        working_bytes=sizes.encoding(),
    )


def _judges(rewards: Sequence[Reward]) -> int:
    """Bytes that stay loaded to judge answers."""
    return OVERLAP_BYTES if any(isinstance(reward, OverlapReward) for reward in rewards) else 0


def _judged(sizes: TensorSizes, rewards: Sequence[Reward]) -> int:
    """The worst of a step's beginning, when there are no activations: answers are written, or a reward model reads them
    with an encoder of its own, block by block."""
    if not rewards:
        return 0
    reads = any(isinstance(reward, ModelReward) for reward in rewards)
    model = sizes.encoder_block() + sizes.hidden_states() + sizes.encoding() if reads else 0
    return max(sizes.writing(), model)


def _cuda_bytes(device: Device) -> int:
    return CUDA_CONTEXT_BYTES if device == "cuda" else 0


def _with_slack(**parts: int) -> Breakdown:
    return Breakdown(**parts, slack_bytes=int(SLACK_SHARE * sum(parts.values())))
