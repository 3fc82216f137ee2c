"""The forward pass of `quantize report` is T5's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from quantize.base import load_base
from quantize.errors import BaseFormatError
from quantize.forward import Forward, Texts, check_runs, position_buckets
from tests.fakes.random_t5 import random_t5, save_base

SIZES = {
    "vocab_size": 96,
    "d_model": 32,
    "d_kv": 8,
    "num_heads": 3,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
}


def random_ids(*lengths: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(3)
    return [tuple(torch.randint(2, 96, (length,), generator=generator).tolist()) for length in lengths]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_that_of_transformers(tmp_path: Path) -> None:
    """Examples of unequal lengths, a decoder deeper than the encoder, texts longer than the farthest position."""
    model = random_t5(**SIZES)
    save_base(model, tmp_path)
    base = load_base(tmp_path, "fp32")
    texts = Texts(random_ids(17, 5, 30), random_ids(4, 19, 1))

    loss = Forward(base.config, base.weights.__getitem__, base.plain.__getitem__).loss(texts)

    pairs = [(torch.tensor([s]), torch.tensor([t])) for s, t in zip(texts.sources, texts.targets, strict=True)]
    expected = sum(float(model(input_ids=s, labels=t).loss) * t.numel() for s, t in pairs) / texts.n_target_tokens
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("both_ways", [True, False])
def test_positions_fall_into_t5s_buckets(both_ways: bool) -> None:
    """Every distance within ±300 has transformers' bucket, for FLAN-T5's sizes and for odd ones."""
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = torch.arange(-300, 301)
    for n_buckets, farthest in ((32, 128), (8, 12), (20, 77)):
        expected = T5Attention._relative_position_bucket(distances, both_ways, n_buckets, farthest)
        assert torch.equal(position_buckets(distances, both_ways, n_buckets, farthest), expected)


def test_an_example_does_not_see_its_neighbours(config: Any, tensors: Any, make_base: Any) -> None:
    """Though all tokens lie in one matrix, the loss of two examples is the mean of theirs alone."""
    base = load_base(make_base(config, tensors), "fp32")
    forward = Forward(base.config, base.weights.__getitem__, base.plain.__getitem__)
    sources, targets = random_ids(9, 4), random_ids(3, 3)

    both = forward.loss(Texts(sources, targets))

    alone = [forward.loss(Texts([s], [t])) for s, t in zip(sources, targets, strict=True)]
    assert both == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert math.isfinite(both)


@pytest.mark.parametrize(
    "change",
    [
        {"feed_forward_proj": "gated-silu"},
        {"feed_forward_proj": None},
        {"relative_attention_num_buckets": 2},
        {"relative_attention_max_distance": "far"},
        {"relative_attention_max_distance": 1},
        {"decoder_start_token_id": None},
        {"eos_token_id": [1]},
        {"eos_token_id": 120},
        {"layer_norm_epsilon": "1e-6"},
        {"layer_norm_epsilon": float("nan")},
    ],
)
def test_what_it_cannot_compute_is_said(change: Any, config: Any) -> None:
    """Another activation, or position tables that T5 has not: an error instead of a wrong number."""
    with pytest.raises(BaseFormatError):
        check_runs(config | change)
