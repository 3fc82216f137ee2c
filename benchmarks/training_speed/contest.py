"""A contest of trainers: contestants, workload and measurements, as plain values that processes exchange."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

from edge_client.jobs.messages import CacheDtype, Compute, Format
from wire.run import Scope

Kind = Literal["peft", "bitsandbytes", "ours"]

SHAPES = ("small", "base", "large", "xl", "xxl")
"""FLAN-T5's shapes (quantize.random_base.SHAPES, which needs torch)."""

EPOCHS = 3
"""Epochs over which the encoding pass is spread in the amortised figure."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """`steps` optimiser steps on `batch` pairs of exactly `source` and `target` tokens, LoRA of `rank` on q and v.

    `threads` 0 leaves their number to torch. `micro_batch` pairs are in one backward pass.
    """

    shape: str
    steps: int
    batch: int = 4
    micro_batch: int = 4
    source: int = 512
    target: int = 64
    rank: int = 8
    threads: int = 0
    seed: int = 7


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """One way to train. `format` is the frozen base's; `cache`, `compute`, `sketch` and `trains_a` are ours only: the
    others always train both factors of an adapter.

    Scope "decoder" trains q and v of the decoder alone.
    """

    kind: Kind
    format: Format
    scope: Scope
    checkpointing: bool = False
    compute: Compute = "fp32"
    cache: CacheDtype = "none"
    sketch: bool = False
    trains_a: bool = False

    @property
    def name(self) -> str:
        """The contestant as tables name it."""
        title = {"peft": "transformers + PEFT", "bitsandbytes": "the same, bitsandbytes", "ours": "ours"}[self.kind]
        extras = ["checkpointing"] * self.checkpointing + ["sketch in every batch"] * self.sketch
        extras += ["A and B"] * self.trains_a
        extras += [f"{self.cache} cache"] * (self.cache != "none")
        return ", ".join([f"{title} {self.format}", *extras])


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a process of its own.

    Attributes:
        tokens_per_s: source and target tokens, steady state.
        encode_s_per_token: seconds of the pass that fills the encoder cache, per source token; 0.0 where there is none.
        peak_bytes: most resident memory (VmHWM).
        imports_bytes: resident memory once the libraries were imported.
        predicted_bytes: the peak that our plan expects, 0.0 for others.
        n_trained: values that the optimiser changes.
    """

    tokens_per_s: float
    encode_s_per_token: float = 0.0
    peak_bytes: float
    imports_bytes: float
    n_trained: int
    predicted_bytes: float = 0.0

    @property
    def above_imports_bytes(self) -> float:
        """Peak memory beyond the imported libraries."""
        return self.peak_bytes - self.imports_bytes


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A contestant's repeats on one shape. `reason` says why there is none, or what had to be changed to run."""

    contestant: Contestant
    workload: Workload
    runs: tuple[Measurement, ...]
    reason: str = ""

    @property
    def tokens_per_s(self) -> float:
        return statistics.median(run.tokens_per_s for run in self.runs)

    @property
    def amortised_tokens_per_s(self) -> float:
        """Tokens per second over EPOCHS epochs in which every source is encoded once."""
        return statistics.median(amortised(run, self.workload) for run in self.runs)

    @property
    def peak_bytes(self) -> float:
        return statistics.median(run.peak_bytes for run in self.runs)

    @property
    def above_imports_bytes(self) -> float:
        return statistics.median(run.above_imports_bytes for run in self.runs)


class ContestantFailed(Exception):
    """A run that gave no number. `lacked_memory`: fewer examples at a time may help."""

    def __init__(self, reason: str, *, lacked_memory: bool = False) -> None:
        super().__init__(reason)
        self.lacked_memory = lacked_memory


def amortised(run: Measurement, workload: Workload) -> float:
    """Tokens per second over EPOCHS epochs, the one pass over the sources included."""
    tokens = EPOCHS * (workload.source + workload.target)
    return tokens / (tokens / run.tokens_per_s + workload.source * run.encode_s_per_token)


def find(rows: Sequence[Row], kind: Kind, scope: Scope) -> Row | None:
    """The first row of that kind and scope with a number."""
    return next(
        (row for row in rows if row.runs and (row.contestant.kind, row.contestant.scope) == (kind, scope)), None
    )
