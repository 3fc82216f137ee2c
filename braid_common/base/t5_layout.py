"""Names and shapes of the tensors that a gated T5 (FLAN-T5, T5 v1.1) consists of, as Hugging Face names them."""

from __future__ import annotations

from braid_common.base.t5_config import T5Config

HEAD = "lm_head.weight"

_POSITION_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"


def tensor_shapes(base: T5Config) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of an untied model, by full parameter name."""
    embedding = (base.vocab_size, base.d_model)
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": embedding, HEAD: embedding}
    for side, n_blocks in (("encoder", base.n_encoder_blocks), ("decoder", base.n_decoder_blocks)):
        for i in range(n_blocks):
            shapes |= _block_shapes(f"{side}.block.{i}.layer", base, cross=side == "decoder")
        shapes[f"{side}.block.0.{_POSITION_BIAS}"] = (base.n_buckets, base.n_heads)
        shapes[f"{side}.final_layer_norm.weight"] = (base.d_model,)
    return shapes


def is_matrix(name: str) -> bool:
    """Whether a parameter is a linear or embedding matrix, to be quantised; norms and position tables are not."""
    return not name.endswith(("layer_norm.weight", "relative_attention_bias.weight"))


def _block_shapes(prefix: str, base: T5Config, *, cross: bool) -> dict[str, tuple[int, ...]]:
    d_model, d_ff, inner = base.d_model, base.d_ff, base.inner
    shapes: dict[str, tuple[int, ...]] = {}
    for place, kind in enumerate(("SelfAttention", "EncDecAttention") if cross else ("SelfAttention",)):
        for part in "qkv":
            shapes[f"{prefix}.{place}.{kind}.{part}.weight"] = (inner, d_model)
        shapes[f"{prefix}.{place}.{kind}.o.weight"] = (d_model, inner)
        shapes[f"{prefix}.{place}.layer_norm.weight"] = (d_model,)
    last = 2 if cross else 1
    for part in ("wi_0", "wi_1"):
        shapes[f"{prefix}.{last}.DenseReluDense.{part}.weight"] = (d_ff, d_model)
    shapes[f"{prefix}.{last}.DenseReluDense.wo.weight"] = (d_model, d_ff)
    shapes[f"{prefix}.{last}.layer_norm.weight"] = (d_model,)
    return shapes
