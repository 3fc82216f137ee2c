"""Peak memory of the training worker, predicted from shapes alone, part by part.

The tensors are counted in edge_client/plan/step_memory.py and adapter_sizes.py. Lengths are the run's limits; shorter
texts need less. Constants that no formula gives were measured on the engine and name the measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge_client.jobs.messages import CacheDtype, Compute, Device, Format
from edge_client.plan.step_memory import LOGITS_BYTES as LOGITS_BYTES
from edge_client.plan.step_memory import TensorSizes
from wire.messages import RunInfo

IMPORTS_BYTES = 243 << 20
"""Resident memory of a worker that has imported torch and the engine and read tokenizer and data, before any model.
Measured: 239 to 244 MiB (x86-64, Python 3.11, torch 2.13 CPU)."""

KERNELS_BYTES = {"fp32": 28 << 20, "bf16": 52 << 20}
"""Code and scratch that training brings in and keeps. bf16 products on x86 are compiled by oneDNN as they come.
Measured as what a round leaves behind, of bases from 15 to 290 MiB: fp32 25 to 29, bf16 48 to 55 MiB."""

FORWARD_KERNELS_BYTES = {"fp32": 14 << 20, "bf16": 30 << 20}
"""Of these, what the encoding pass brings in, which goes forward only. Measured as what its tensors leave unexplained:
bf16 26 to 42 MiB (builtin to large shape), fp32 7 to 28."""

CUDA_CONTEXT_BYTES = 400 << 20
"""Driver, kernels and cuBLAS workspace of a process that uses CUDA. Not measured here: "around 400MB" where modules are
loaded as they are needed, the default since CUDA 11.7 (github.com/pytorch/pytorch/issues/109888). On a Jetson it comes
out of the same memory as everything else."""

SLACK_SHARE = 0.10
"""Added to everything else for holes in the heap, which grow where lengths vary, and for what the measurements of
benchmarks/memory/prediction.py leave unexplained: a plan that is too careful loses strands, one that is not loses the
round."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Predicted peak of the worker, in bytes.

    Attributes:
        imports_bytes: interpreter, torch and tokenizer.
        kernels_bytes: what torch loads and compiles when it first computes, CUDA's context included.
        base_bytes: the frozen base in its format; with a cache of encoder outputs without its encoder.
        context_bytes: factors of the global adapter, frozen, in the compute dtype.
        strands_bytes: values that are trained (B, and A where the run trains it) with gradients and Adam moments, and
            basis rows that are not.
        sketch_bytes: gradient sketches, R × n fp32 of each weight.
        activations_bytes: what the backward pass needs of one micro-batch, kept layer inputs of a sketch included.
        working_bytes: the largest of the short-lived sets: unpacked weight with gradients, scores or logits; or what
            the adapter takes while it is read, or the round's message while it is written, above the activations.
        slack_bytes: allocator overhead.
        encoding_bytes: what the encoding pass, which comes before training, needs more than all of the above.
    """

    imports_bytes: int
    kernels_bytes: int
    base_bytes: int
    context_bytes: int
    strands_bytes: int
    sketch_bytes: int
    activations_bytes: int
    working_bytes: int
    slack_bytes: int
    encoding_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Name (as above) to bytes, in the order above; encoding only where it needs more than training."""
        return {name: size for name, size in asdict(self).items() if size or name != "encoding_bytes"}


def predict_peak(
    config: Mapping[str, Any],
    run: RunInfo,
    format: Format,
    compute: Compute,
    micro_batch: int,
    ranks: Sequence[int],
    imports_bytes: int = IMPORTS_BYTES,
    *,
    checkpointing: bool = False,
    cache: CacheDtype = "none",
    device: Device = "cpu",
    frozen_encoder: bool = False,
) -> Breakdown:
    """Predict the peak of a training round that also sketches, and of the profile before it; evaluations stay below.

    With a cache there are two phases, encoding and then training without the encoder; the larger counts.

    Args: config, the base's config.json; ranks, strands per weight in manifest order, 0 for the encoder's where it is
    frozen; the rest as in a Plan.
    """
    sizes = TensorSizes(
        config, run, format, compute, micro_batch, checkpointing=checkpointing, frozen_encoder=frozen_encoder
    )
    reads_cache = cache != "none"
    activations, adapter = sizes.activations(ranks), sizes.adapter
    without_activations = adapter.whole(ranks), adapter.start(ranks), adapter.end(ranks)
    stepping = sizes.working(encodes=not reads_cache) + max(0, adapter.profile(ranks))
    training = _with_slack(
        imports_bytes=imports_bytes,
        kernels_bytes=KERNELS_BYTES[compute] + _cuda_bytes(device),
        base_bytes=sizes.base(encoder=not reads_cache),
        context_bytes=adapter.context(ranks),
        strands_bytes=adapter.strands(ranks),
        sketch_bytes=adapter.sketches(),
        activations_bytes=activations,
        working_bytes=max(stepping, max(without_activations) - activations),
    )
    if not reads_cache:
        return training
    encoding = predict_encoding(config, run, format, compute, imports_bytes, device=device)
    return replace(training, encoding_bytes=max(0, encoding.total_bytes - training.total_bytes))


def strand_marginal_bytes(
    config: Mapping[str, Any],
    run: RunInfo,
    format: Format,
    compute: Compute,
    micro_batch: int,
    *,
    checkpointing: bool = False,
    frozen_encoder: bool = False,
) -> tuple[int, ...]:
    """The most that one more strand of each weight (manifest order) adds to `predict_peak`, at any ranks.

    The peak is the largest of a few sums, each of them linear in the ranks (with checkpointing there is one for each
    block), and so convex in them: peak(ranks) ≤ peak(zeros) + Σ rank · marginal. Where one moment is the worst at both
    ends and each strand adds most to that moment, the two sides are equal to rounding.
    """
    sizes = TensorSizes(
        config, run, format, compute, micro_batch, checkpointing=checkpointing, frozen_encoder=frozen_encoder
    )
    return tuple(math.ceil((1 + SLACK_SHARE) * sizes.strand(weight)) for weight in run.weights)


def predict_encoding(
    config: Mapping[str, Any],
    run: RunInfo,
    format: Format,
    compute: Compute,
    imports_bytes: int = IMPORTS_BYTES,
    *,
    device: Device = "cpu",
) -> Breakdown:
    """Predict the peak of the pass of the frozen encoder that fills a cache, before anything else is loaded."""
    sizes = TensorSizes(config, run, format, compute, 1)
    return _with_slack(
        imports_bytes=imports_bytes,
        kernels_bytes=FORWARD_KERNELS_BYTES[compute] + _cuda_bytes(device),
        base_bytes=sizes.encoder_block(),
        context_bytes=0,
        strands_bytes=0,
        sketch_bytes=0,
        activations_bytes=sizes.hidden_states(),
        working_bytes=sizes.encoding(),
    )


def _cuda_bytes(device: Device) -> int:
    return CUDA_CONTEXT_BYTES if device == "cuda" else 0


def _with_slack(**parts: int) -> Breakdown:
    return Breakdown(**parts, slack_bytes=int(SLACK_SHARE * sum(parts.values())))
