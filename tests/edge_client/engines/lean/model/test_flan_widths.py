"""FLAN-T5-small's widths, whose attention is 384 × 512, and fewer blocks: against transformers and PEFT in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.encoder_cache.encoder_pass import EncoderSpec, encode_sources
from edge_client.engines.lean.encoder_cache.reader import stacked
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.model import Model
from edge_client.jobs.sizes import VOCABULARY_ROWS
from quantize.base import load_base
from tests.fakes.models.random_t5 import random_t5, save_base

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft's own call
]

VOCABULARY = VOCABULARY_ROWS + 300  # two chunks of the head
MAX_ERROR = 1e-4


@pytest.fixture(scope="module")
def reference() -> T5ForConditionalGeneration:
    return random_t5(
        vocab_size=VOCABULARY, d_model=512, d_kv=64, num_heads=6, d_ff=1024, num_layers=2, num_decoder_layers=2
    )


@pytest.fixture(scope="module")
def folder(reference: T5ForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("widths")
    save_base(reference, path)
    return path


@pytest.fixture(scope="module")
def batch() -> Batch:
    generator = torch.Generator().manual_seed(3)
    pairs = []
    for n_source, n_target in ((150, 21), (75, 40), (4, 2)):
        ids = torch.randint(2, VOCABULARY, (n_source + n_target,), generator=generator).tolist()
        pairs.append(Pair((*ids[:n_source], 1), (*ids[n_source:], 1)))
    return collate(pairs, pad_id=0, start_id=0)


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def cached_output(folder: Path, batch: Batch) -> Tensor:
    """What the cache would serve in fp32, block by block from the files."""
    rows: dict[tuple[int, ...], Tensor] = {}
    encode_sources(
        EncoderSpec(folder, "fp32", torch.float32),
        batch.sources,
        lambda ids, hidden: rows.update({ids: hidden.clone()}),
    )
    return stacked([rows[ids] for ids in batch.sources], batch.source.shape[1])


def test_forward_equals_transformers(folder: Path, batch: Batch, reference: T5ForConditionalGeneration) -> None:
    """Encoder output on real tokens, whether from the live encoder or the pass over its blocks, and the loss."""
    model = Model(load_base(folder, "fp32"), AdapterTensors(), "fp32")
    mask = batch.source_mask
    theirs = reference(input_ids=batch.source, attention_mask=mask.long(), labels=batch.labels)

    with torch.no_grad():
        live, cached = model.encode(batch.source, batch.padding), cached_output(folder, batch)

        assert error(live[mask], theirs.encoder_last_hidden_state[mask]) < MAX_ERROR
        assert error(cached[mask], theirs.encoder_last_hidden_state[mask]) < MAX_ERROR
        assert error(model.loss_sum(batch) / batch.n_target_tokens, theirs.loss) < MAX_ERROR


@pytest.mark.parametrize("scope", ["all", "decoder"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_peft(
    scope: str, checkpointing: bool, folder: Path, batch: Batch, reference: T5ForConditionalGeneration
) -> None:
    """∂loss/∂B of LoRA on q, v and wo: in all scope with the live encoder, in decoder scope on encoder output that was
    computed beforehand, without the encoder in memory."""
    from peft import LoraConfig, get_peft_model

    decoder_only = scope == "decoder"
    targets = r"decoder\..*\.(q|v|wo)" if decoder_only else r".*\.(q|v|wo)"
    config = LoraConfig(r=4, lora_alpha=4, target_modules=targets, lora_dropout=0.0)
    peft = get_peft_model(reference, config)
    try:
        generator = torch.Generator().manual_seed(2)
        sides: dict[str, dict[str, Tensor]] = {"lora_A": {}, "lora_B": {}}
        for key, value in peft.named_parameters():
            if ".lora_" in key:
                value.data.normal_(0, 0.05, generator=generator)
                name, _, side = key.removeprefix("base_model.model.").partition(".lora_")
                sides[f"lora_{side[0]}"][name] = value
        base = load_base(folder, "fp32", wanted=lambda name: not (decoder_only and name.startswith("encoder.")))
        basis = {name: a.detach().clone() for name, a in sides["lora_A"].items()}
        model = Model(
            base, AdapterTensors(basis=basis), "fp32", trains_encoder=not decoder_only, checkpointing=checkpointing
        )
        for name, b in sides["lora_B"].items():
            model.linears[name].b = b.detach().clone()
            model.linears[name].train()

        encoded = cached_output(folder, batch) if decoder_only else None
        (model.loss_sum(batch, encoded) / batch.n_target_tokens).backward()
        peft(input_ids=batch.source, attention_mask=batch.source_mask.long(), labels=batch.labels).loss.backward()

        assert len(sides["lora_B"]) == (10 if decoder_only else 16)
        for name, b in sides["lora_B"].items():
            grad = model.linears[name].b.grad
            assert grad is not None and b.grad is not None
            assert error(grad, b.grad) < MAX_ERROR, name
    finally:
        peft.unload()
        reference.requires_grad_(False)
