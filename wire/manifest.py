"""Which weights of a T5 may be trained, in the one order that both sides use, and the digest that they compare."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from wire.errors import WireError
from wire.limits import MAX_SIDE, MAX_WEIGHTS
from wire.messages import Scope, Weight

ENCODER_BLOCK_WEIGHTS = 7  # q k v o, wi_0 wi_1 wo
DECODER_BLOCK_WEIGHTS = 11  # the same and the q k v o of cross-attention


def t5_weights(config: Mapping[str, Any], scope: Scope) -> tuple[Weight, ...]:
    """Attention and feed-forward matrices of a T5 described by its `config.json`, shapes (out, in).

    `scope` "decoder" leaves the encoder out. Raises WireError if the config is not a gated T5's or beyond the limits.
    """
    gated = config.get("is_gated_act", str(config.get("feed_forward_proj", "")).startswith("gated-"))
    if config.get("model_type", "t5") != "t5" or not gated:
        raise WireError("config.json is not a FLAN-T5's: model_type t5 with a gated feed-forward is needed")
    d_model, d_ff = _count(config, "d_model"), _count(config, "d_ff")
    inner = _count(config, "d_kv") * _count(config, "num_heads")
    n_encoder = _count(config, "num_layers")
    n_decoder = _count(config, "num_decoder_layers") if config.get("num_decoder_layers") else n_encoder
    if ENCODER_BLOCK_WEIGHTS * n_encoder + DECODER_BLOCK_WEIGHTS * n_decoder > MAX_WEIGHTS:
        raise WireError(f"config.json has {n_encoder} + {n_decoder} layers, at most {MAX_WEIGHTS} weights are allowed")
    if max(d_model, d_ff, inner) > MAX_SIDE:
        raise WireError(f"config.json has a weight of side {max(d_model, d_ff, inner)}, at most {MAX_SIDE} is allowed")

    def attention(prefix: str) -> list[Weight]:
        weights = [Weight(name=f"{prefix}.{part}", rows=inner, columns=d_model) for part in "qkv"]
        return [*weights, Weight(name=f"{prefix}.o", rows=d_model, columns=inner)]

    def feed_forward(prefix: str) -> list[Weight]:
        weights = [Weight(name=f"{prefix}.{part}", rows=d_ff, columns=d_model) for part in ("wi_0", "wi_1")]
        return [*weights, Weight(name=f"{prefix}.wo", rows=d_model, columns=d_ff)]

    weights: list[Weight] = []
    for i in range(n_encoder if scope == "all" else 0):
        block = f"encoder.block.{i}.layer"
        weights += attention(f"{block}.0.SelfAttention") + feed_forward(f"{block}.1.DenseReluDense")
    for i in range(n_decoder):
        block = f"decoder.block.{i}.layer"
        weights += attention(f"{block}.0.SelfAttention") + attention(f"{block}.1.EncDecAttention")
        weights += feed_forward(f"{block}.2.DenseReluDense")
    return tuple(weights)


def manifest_digest(weights: Sequence[Weight]) -> str:
    """SHA-256 of the lines "NAME ROWS COLUMNS" in order. Two sides with equal digests agree on every key and shape."""
    text = "".join(f"{w.name} {w.rows} {w.columns}\n" for w in weights)
    return hashlib.sha256(text.encode()).hexdigest()


def _count(config: Mapping[str, Any], key: str) -> int:
    """A whole number above zero of the config; raises WireError that names the key."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WireError(f"config.json is not a T5's: {key} is {str(value)[:40]}, a whole number above zero is needed")
    return value
