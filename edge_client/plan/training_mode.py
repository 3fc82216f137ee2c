"""Modes in which a board may train a run, and how much each keeps of what the same strands could learn at best."""

from __future__ import annotations

from collections.abc import Mapping

from edge_client.host.board import Board
from edge_client.jobs.messages import CacheDtype, Compute, Format, TrainingMode
from edge_client.plan.cache_budget import cache_dtype
from edge_client.plan.situation import Situation
from quantize.formats import FORMATS as FORMATS

KEPT_LEARNING: Mapping[Format, float] = {"fp32": 1.0, "bf16": 1.0, "int8": 1.0, "nf4": 0.92}
"""Part of a run's gain in held-out loss that a base in this format leaves. nf4 raised the builtin base's loss by 0.008
and 0.016 nats per token on two data sets, where a run of the demo gains 0.21 (README.md): 4 to 8 % of it, and the worse
counts. bf16 moved it by 0.0005 at most, and int8 by 0.001 at most, on the checkpoint before it was stored in int8."""

SLOWNESS_EXPONENT = 0.25
"""A mode that takes k times the operations of the quickest counts k^-0.25 of its worth. How much learning an hour is
worth was not measured, and depends on who waits; this asks for clearly more importance from a slower mode: 7 % at 1.3
times the operations, 19 % at twice, 57 % at six times."""


def compute_for(format: Format, board: Board) -> Compute:
    """Number format of products: fp32 for an fp32 base; for others bf16 where the processor has it, since emulated bf16
    is slow."""
    return "bf16" if format != "fp32" and board.bf16_fast else "fp32"


def is_slow_arithmetic(mode: TrainingMode, board: Board) -> bool:
    """Whether another arithmetic is the faster one: fp32 where bf16 is. Such modes are left out, for they cost most of
    the board's speed and gain no learning (KEPT_LEARNING)."""
    return mode.format == "fp32" and board.bf16_fast


def possible_modes(situation: Situation) -> list[TrainingMode]:
    """Every mode, the simplest first: of two that are worth the same, the earlier is taken.

    Micro-batches are the run's, its half, and so on down to one.
    """
    board, settings = situation.board, situation.run.settings
    best_cache = cache_dtype(situation.run, situation.base, situation.cache)
    caches: tuple[CacheDtype, ...] = ("none",) if best_cache == "none" else (best_cache, "none")
    return [
        TrainingMode(
            format=format,
            compute=compute_for(format, board),
            micro_batch=micro_batch,
            checkpointing=checkpointing,
            cache=cache,
            frozen_encoder=frozen_encoder,
            device=board.device,
        )
        for frozen_encoder in ((False, True) if settings.scope == "all" else (False,))
        for cache in caches
        for checkpointing in (False, True)
        for micro_batch in _halvings(settings.micro_batch)
        for format in FORMATS
    ]


def _halvings(micro_batch: int) -> list[int]:
    sizes = []
    while micro_batch:
        sizes.append(micro_batch)
        micro_batch //= 2
    return sizes
