"""The numbers of a gated T5's config.json, read and checked once. Everything else is handed this, never the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MAX_SIZE = 1 << 20
"""Largest plausible size in config.json; FLAN-T5-xxl's vocabulary, its largest number, has 32,128."""

MAX_LAYERS = 1024
"""FLAN-T5-xxl has 24. Without a bound, a damaged number would make programs list tensors for hours."""

GATED = ("gated-gelu", "gated-gelu_new")
"""Values of feed_forward_proj that mean T5 v1.1's gated GELU."""


@dataclass(frozen=True, slots=True)
class T5Config:
    """Sizes and token ids of a T5 v1.1 or FLAN-T5.

    Attributes:
        vocab_size: rows of the embedding and of the output layer.
        d_model: width of the residual stream.
        d_kv: width of one attention head.
        d_ff: width of the feed-forward layer.
        n_heads: attention heads of every layer.
        n_encoder_blocks, n_decoder_blocks: depth of each side.
        n_buckets, max_distance: of the relative position bias.
        epsilon: of the root-mean-square norms.
        scales_output: whether the decoder's output is multiplied by d_model^-0.5 before the output layer.
        may_tie: whether the output layer may be missing because it is the embedding; the files decide.
        pad_id, eos_id, start_id: token ids of padding, of the end of a text, and of the decoder's first input.
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    n_heads: int
    n_encoder_blocks: int
    n_decoder_blocks: int
    n_buckets: int = 32
    max_distance: int = 128
    epsilon: float = 1e-6
    scales_output: bool = False
    may_tie: bool = False
    pad_id: int = 0
    eos_id: int = 1
    start_id: int = 0

    @property
    def inner(self) -> int:
        """Width of all heads together: rows of q, k and v."""
        return self.d_kv * self.n_heads

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> T5Config:
        """Read the object of a config.json. Raises ValueError that names the key and what it needs."""
        if config.get("model_type", "t5") != "t5":
            raise ValueError(f"model_type is {_shown(config['model_type'])}, t5 is needed (a FLAN-T5 or T5 v1.1)")
        if config.get("feed_forward_proj") not in GATED:
            found = _shown(config.get("feed_forward_proj"))
            raise ValueError(f"feed_forward_proj is {found}, gated-gelu is needed (a FLAN-T5 or T5 v1.1)")
        n_encoder_blocks = _size(config, "num_layers", MAX_LAYERS)
        tied = config.get("tie_word_embeddings", True) is not False
        return cls(
            vocab_size=_size(config, "vocab_size"),
            d_model=_size(config, "d_model"),
            d_kv=_size(config, "d_kv"),
            d_ff=_size(config, "d_ff"),
            n_heads=_size(config, "num_heads"),
            n_encoder_blocks=n_encoder_blocks,
            n_decoder_blocks=_size(config, "num_decoder_layers", MAX_LAYERS, default=n_encoder_blocks),
            n_buckets=_size(config, "relative_attention_num_buckets", default=32),
            max_distance=_size(config, "relative_attention_max_distance", default=128),
            epsilon=_epsilon(config),
            # transformers 5 writes tie_word_embeddings true for every T5 and keeps the truth in the other key.
            scales_output=bool(config.get("scale_decoder_outputs", tied)),
            may_tie=tied,
            pad_id=_token(config, "pad_token_id", 0),
            eos_id=_token(config, "eos_token_id", 1),
            start_id=_token(config, "decoder_start_token_id", 0),
        )


def _size(config: Mapping[str, Any], key: str, most: int = MAX_SIZE, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{key} is {_shown(value)}, a number in 1…{most} is needed")
    return value


def _token(config: Mapping[str, Any], key: str, default: int) -> int:
    value, rows = config.get(key, default), config.get("vocab_size")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < (rows if isinstance(rows, int) else 0):
        raise ValueError(f"{key} is {_shown(value)}, the id of a token below vocab_size is needed")
    return value


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_epsilon", 1e-6)
    if not isinstance(value, float) or not 0 <= value < 1:
        raise ValueError(f"layer_norm_epsilon is {_shown(value)}, a number in 0…1 is needed")
    return value


def _shown(value: object) -> str:
    """The value in few characters, whatever it is."""
    return repr(value)[:40]


def _flan_t5(d_model: int, d_ff: int, n_blocks: int, n_heads: int) -> T5Config:
    return T5Config(
        vocab_size=32128,
        d_model=d_model,
        d_kv=64,
        d_ff=d_ff,
        n_heads=n_heads,
        n_encoder_blocks=n_blocks,
        n_decoder_blocks=n_blocks,
    )


FLAN_T5: Mapping[str, T5Config] = MappingProxyType(
    {
        "flan-t5-small": _flan_t5(512, 1024, 8, 6),
        "flan-t5-base": _flan_t5(768, 2048, 12, 12),
        "flan-t5-large": _flan_t5(1024, 2816, 24, 16),
        "flan-t5-xl": _flan_t5(2048, 5120, 24, 32),
        "flan-t5-xxl": _flan_t5(4096, 10240, 24, 64),
    }
)
"""Sizes as published on the Hugging Face hub."""
