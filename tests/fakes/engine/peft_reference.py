"""PEFT as the judge of adapters on the tests' small T5: what it computes and writes, and adapters to give it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aggregator.export import Origin, export_peft
from aggregator.merge.state import AdapterState, WeightState
from braid_common.text_form import DEFAULT_FORM
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean.model.batches import source_batch
from wire.run import Weight

MARKS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft's own call
    pytest.mark.filterwarnings("ignore:The following .* keys did not match any targeted module:RuntimeWarning"),
]

TEXTS = ("w1 w2 w3 w4 w5", "w60", "w7 w70 w8 w9 w17 w90 w33 w2")
MAX_NEW_TOKENS = 8
ROUNDING = 2e-5
"""Of the largest logit: fp32's 6e-8, grown by five blocks of random weights whose sums have another order here."""


def exported(weights: Iterable[Weight], ranks: Sequence[int], rng: np.random.Generator, folder: Path) -> Path:
    """A random global adapter as `aggregator export` writes it; the weights have the ranks in turn."""
    states = {}
    for i, weight in enumerate(weights):
        rank = ranks[i % len(ranks)]
        states[weight.name] = WeightState(
            frozen_b=(0.3 * rng.standard_normal((weight.rows, rank))).astype(np.float32),
            frozen_a=(0.3 * rng.standard_normal((rank, weight.columns))).astype(np.float32),
            basis=np.zeros((0, weight.columns), np.float32),
            values=np.zeros(0),
        )
    return export_peft(AdapterState(version=1, weights=states), folder, Origin("any")).folder


def asked(base_folder: Path, vocab_size: int) -> tuple[Tensor, Tensor]:
    """TEXTS as ids and their mask."""
    tokeniser = Tokeniser(base_folder, 1, vocab_size)
    return source_batch([tokeniser.source(text, DEFAULT_FORM) for text in TEXTS], 0)


def start() -> Tensor:
    """The decoder's first piece for each of TEXTS."""
    return torch.zeros((len(TEXTS), 1), dtype=torch.long)


@torch.no_grad()
def of_peft(model: Any, base_folder: Path) -> tuple[Tensor, list[list[int]]]:
    """First logits and greedy answers, without their end, of a T5 with PEFT's adapters."""
    source, mask = asked(base_folder, model.config.vocab_size)
    inputs = {"input_ids": source, "attention_mask": mask.long()}
    written = model.generate(
        **inputs, use_cache=False, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, num_beams=1
    ).tolist()
    answers = [row[1 : row.index(1) if 1 in row else len(row)] for row in written]
    return model(**inputs, decoder_input_ids=start()).logits[:, 0], answers


def same(logits: Tensor, expected: Tensor) -> bool:
    """Whether logits are those of PEFT, to rounding."""
    return float((logits - expected).abs().max()) <= ROUNDING * float(expected.abs().max())
