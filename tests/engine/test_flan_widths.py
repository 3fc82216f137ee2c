"""FLAN-T5-small's widths, whose attention is 384 × 512, and fewer blocks: against transformers and PEFT in fp32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edge_client.engine.adapter_tensors import AdapterTensors
from edge_client.engine.batches import Batch, collate
from edge_client.engine.encoder_pass import encode_sources
from edge_client.engine.head_loss import VOCABULARY_ROWS
from edge_client.engine.model import Model
from edge_client.engine.prefix import stacked
from edge_client.engine.tokeniser import Pair
from quantize.base import load_base

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
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=512,
        d_kv=64,
        num_heads=6,
        d_ff=1024,
        num_layers=2,
        num_decoder_layers=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        model = T5ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    model.config.tie_word_embeddings = False  # transformers 5 ties the head whatever the config says
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.05 if "shared" in name or weight.ndim == 1 or "relative" in name else weight.shape[1] ** -0.5
            weight.normal_(1.0 if "norm" in name else 0.0, scale, generator=generator)
            if name.endswith(".q.weight"):
                weight.mul_(64**-0.5)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def folder(reference: T5ForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("widths")
    config = json.loads(reference.config.to_json_string(use_diff=False))
    config.pop("scale_decoder_outputs", None)
    (path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    dropped = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    state = {name: value.clone() for name, value in reference.state_dict().items() if name not in dropped}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
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
    encode_sources(folder, "fp32", torch.float32, batch.sources, lambda ids, hidden: rows.update({ids: hidden.clone()}))
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
