"""The manifest: weights of a T5 that may be trained, in the order that both sides use, and the digest they compare."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from braid_common.base.t5_config import T5Config
from wire.errors import WireError
from wire.limits import MAX_SIDE, MAX_WEIGHTS
from wire.run import Scope, Weight

ENCODER_BLOCK_WEIGHTS = 7  # q k v o, wi_0 wi_1 wo
DECODER_BLOCK_WEIGHTS = 11  # the same and the q k v o of cross-attention


def t5_weights(base: T5Config, scope: Scope) -> tuple[Weight, ...]:
    """Attention and feed-forward matrices of a gated T5, shapes (out, in).

    `scope` "decoder" leaves the encoder out. Raises WireError if the base is beyond the limits of a message.
    """
    d_model, d_ff, inner = base.d_model, base.d_ff, base.inner
    n_encoder, n_decoder = base.n_encoder_blocks, base.n_decoder_blocks
    if ENCODER_BLOCK_WEIGHTS * n_encoder + DECODER_BLOCK_WEIGHTS * n_decoder > MAX_WEIGHTS:
        raise WireError(f"the base has {n_encoder} + {n_decoder} layers, at most {MAX_WEIGHTS} weights are allowed")
    if max(d_model, d_ff, inner) > MAX_SIDE:
        raise WireError(f"the base has a weight of side {max(d_model, d_ff, inner)}, at most {MAX_SIDE} is allowed")

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
