"""The builtin base's architecture, FLAN-T5's made small, and an initialisation that starts at ln(vocab)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from builtin_base.training.tokenizer import EOS_ID, PAD_ID, VOCAB_SIZE

EMBEDDING_STD = 0.5
"""Standard deviation of the first word embeddings. T5's 1.0 drowns the blocks' outputs for the first thousand steps."""

HEAD_STD = 0.02
"""Standard deviation of the first output head: logits of about 0.3, so the first loss is ln(vocab) + 0.05."""


_SIZES = ("vocab_size", "d_model", "d_kv", "num_heads", "d_ff", "num_layers", "num_decoder_layers")


def sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Pick from a whole configuration the sizes by which `config` describes an architecture."""
    return {name: config[name] for name in _SIZES}


def config(**changes: Any) -> T5Config:
    """Build the builtin base's configuration; `changes` make smaller ones for tests."""
    values: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "d_model": 256,
        "d_kv": 32,
        "num_heads": 6,  # inner width 192, deliberately not d_model, so that transposed factors show up as errors
        "d_ff": 640,
        "num_layers": 4,
        "num_decoder_layers": 4,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "pad_token_id": PAD_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": PAD_ID,
    }
    return T5Config(**{**values, **changes})


def build(t5_config: T5Config, seed: int) -> T5ForConditionalGeneration:
    """Make a model whose first loss is near ln(vocab).

    Transformers draws the untied head with standard deviation 1, which starts a T5 at a loss above 100. Here the head
    is small, and the projections back into the residual stream start at zero so that each block begins as identity.

    Args:
        t5_config: architecture, untied.
        seed: decides every weight.

    Returns:
        The model in fp32, in training mode, with eager attention (a third faster here than
        SDPA, whose flash kernel cannot give the position bias its gradient).
    """
    torch.manual_seed(seed)
    t5_config._attn_implementation = "eager"
    model = untied(t5_config)
    with torch.no_grad():
        model.shared.weight.normal_(0.0, EMBEDDING_STD)
        model.lm_head.weight.normal_(0.0, HEAD_STD)
        for name, weight in model.named_parameters():
            if name.endswith((".o.weight", ".wo.weight")):
                weight.zero_()
            if "relative_attention_bias" in name:
                weight.mul_(0.1)
    for module in model.modules():
        if hasattr(module, "act"):
            module.act = nn.GELU(approximate="tanh")  # gelu_new, in one kernel instead of eight
    model.train()
    return model


def untied(t5_config: T5Config) -> T5ForConditionalGeneration:
    """Make a T5 whose head is a matrix of its own, as FLAN-T5's is.

    transformers 5 sets ``tie_word_embeddings`` whatever the configuration says and shares the embedding with the head
    when a model is made from a configuration; a first training run lost a quarter of an hour to that.
    """
    model = T5ForConditionalGeneration(t5_config)
    model.lm_head.weight = nn.Parameter(torch.zeros(t5_config.vocab_size, t5_config.d_model))
    return model


def is_matrix(name: str, weight: torch.Tensor) -> bool:
    """Tell whether a parameter is a hidden matrix, which Muon orthogonalises, and not an embedding, bias or head."""
    return weight.ndim == 2 and not name.startswith(("shared", "lm_head")) and "relative_attention_bias" not in name


def optimizers(model: T5ForConditionalGeneration, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """Make Muon for the hidden matrices and AdamW for the rest.

    T5 does not divide attention scores by the root of the head width but draws queries that much smaller; their
    learning rate is smaller by the same factor, so that a step moves scores as far as in scaled attention.

    Args:
        model: whose parameters to train.
        matrix_lr: Muon's rate; its updates are scaled to the root mean square of AdamW's.
        other_lr: AdamW's rate for embeddings, norms and head.

    Returns:
        The optimizers; each parameter group's first rate is kept as ``base_lr`` for the schedule.
    """
    named = dict(model.named_parameters())
    queries = [p for n, p in named.items() if is_matrix(n, p) and n.endswith(".q.weight")]
    matrices = [p for n, p in named.items() if is_matrix(n, p) and not n.endswith(".q.weight")]
    others = [p for n, p in named.items() if not is_matrix(n, p)]
    query_lr = matrix_lr / math.sqrt(model.config.d_kv)
    muon = torch.optim.Muon(
        [{"params": queries, "lr": query_lr}, {"params": matrices, "lr": matrix_lr}],
        lr=matrix_lr,
        momentum=0.95,
        weight_decay=0.05,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(others, lr=other_lr, betas=(0.9, 0.98), eps=1e-10, weight_decay=0.0)
    for group in groups(muon, adamw):
        group["base_lr"] = group["lr"]
    return [muon, adamw]


def groups(*used: torch.optim.Optimizer) -> Iterator[dict[str, Any]]:
    """Yield the parameter groups of several optimizers."""
    for optimizer in used:
        yield from optimizer.param_groups


def token_losses(
    model: T5ForConditionalGeneration, source: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the loss of each target token that is not padding, running the head on those alone.

    Args:
        model: the model.
        source: (batch, n_source) ids, padded with 0.
        target: (batch, n_target) ids, padded with 0.

    Returns:
        (losses in nats, (n_tokens,); logits, (n_tokens, vocab); the pieces to predict, (n_tokens,)); losses in fp32.
    """
    padded = bool((source == PAD_ID).any())
    decoder_input = torch.cat([torch.full_like(target[:, :1], PAD_ID), target[:, :-1]], dim=1)
    mask = (source != PAD_ID).long() if padded else None
    encoded = model.encoder(input_ids=source, attention_mask=mask).last_hidden_state
    decoded = model.decoder(
        input_ids=decoder_input, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    kept = target != PAD_ID
    logits = model.lm_head(decoded[kept]).float()
    labels = target[kept]
    return nn.functional.cross_entropy(logits, labels, reduction="none"), logits, labels
