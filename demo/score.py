"""Held-out scores of the base and of adapters, all on the same text with the same code."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import builtin_base
from braid_common.example import Example
from braid_common.text_form import TextForm
from builtin_base.docstrings import extract
from edge_client.data.load import load_data
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean.evaluate import rouge
from edge_client.engines.lean.generate import Writer
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_any_adapter
from edge_client.engines.lean.model.batches import micro_batches
from edge_client.engines.lean.model.model import Model
from edge_client.jobs.data_spec import DataSpec
from quantize.base import load_base

FORM = TextForm(max_source_tokens=160, max_target_tokens=24)
BATCH = 16
SEED = 1


@dataclass(frozen=True, slots=True)
class Score:
    """Loss in nats per target token, and greedy writing with its mean ROUGE-L F1 (0…1), one text per example."""

    loss: float
    rouge_l: float
    written: tuple[str, ...]


def held_out_text(libraries: Sequence[str], unseen: str, *, per_library: int) -> list[Example]:
    """Text that no board trains on: the boards' own held-out parts, and a library that no board has at all."""
    pools = [load_data(DataSpec(f"builtin:docstrings/{library}")).held_out for library in libraries] + [extract(unseen)]
    return [example for pool in pools for example in random.Random(SEED).sample(pool, min(per_library, len(pool)))]


def score(adapter: Path | None, examples: Sequence[Example]) -> Score:
    """Score the builtin base in fp32 with an exported adapter, or bare."""
    base = load_base(builtin_base.folder(), "fp32")
    model = Model(base, AdapterTensors() if adapter is None else read_any_adapter(adapter, base.weights), "fp32")
    tokeniser = Tokeniser(builtin_base.folder(), model.config.eos_id, base.config.vocab_size)
    pairs = sorted(
        (tokeniser.pair(example, FORM) for example in examples),
        key=lambda pair: len(pair.source),
    )
    total, n_tokens = 0.0, 0
    with torch.no_grad():
        for batch in micro_batches(pairs, BATCH, model.config.pad_id, model.config.start_id):
            total += float(model.loss_sum(batch))
            n_tokens += batch.n_target_tokens
    written = write(adapter, [example.source for example in examples])
    return Score(total / n_tokens, rouge_l([example.target for example in examples], written), tuple(written))


def rouge_l(references: Sequence[str], written: Sequence[str]) -> float:
    return rouge([(reference,) for reference in references], written)["rougeL"]


def most_improved(examples: Sequence[Example], before: Score, after: Score) -> int:
    """Index of the example whose text gained most ROUGE-L."""
    gains = [
        rouge_l([example.target], [new]) - rouge_l([example.target], [old])
        for example, old, new in zip(examples, before.written, after.written, strict=True)
    ]
    return max(range(len(gains)), key=gains.__getitem__)


def write(adapter: Path | None, sources: Sequence[str]) -> list[str]:
    """Write an answer for each source, with an adapter or with the bare base."""
    writer = Writer(
        builtin_base.folder(),
        adapter,
        form=FORM,
        spare_bytes=1 << 30,
    )
    return writer.write(sources)
