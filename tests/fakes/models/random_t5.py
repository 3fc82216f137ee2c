"""transformers' T5 with random weights, and the same as a base folder of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


def random_t5(**sizes: Any) -> T5ForConditionalGeneration:
    """A gated T5 of transformers with an untied head, every weight large enough to matter, nothing to train."""
    from transformers import T5Config, T5ForConditionalGeneration  # seconds, which the fast tests need not pay

    fixed = {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0, "dropout_rate": 0.0}
    config = T5Config(**sizes, **fixed, tie_word_embeddings=False)
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        model = T5ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    # transformers 5 ties the head whatever the config says.
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "relative" not in name:
                weight.normal_(0, weight.shape[1] ** -0.5, generator=generator)
            else:
                weight.normal_(1.0 if "norm" in name else 0.0, 0.3, generator=generator)
            if name.endswith(".q.weight"):
                weight.mul_(model.config.d_kv**-0.5)  # T5's own start: sharper attention would magnify every rounding
        model.shared.weight.normal_(0, 1, generator=generator)
    return model.requires_grad_(False)


def save_base(model: T5ForConditionalGeneration, folder: Path) -> None:
    """Write config.json and model.safetensors as FLAN-T5's folders have them."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("scale_decoder_outputs", None)
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    dropped = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    state = {name: value.clone() for name, value in model.state_dict().items() if name not in dropped}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
