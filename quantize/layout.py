"""Which tensors a gated T5 (FLAN-T5, T5 v1.1) consists of, by the names that Hugging Face gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantize.errors import BaseFormatError

MAX_CONFIG_BYTES = 1 << 20
"""A T5's config.json has 1.5 kB; anything near this size is not one."""

MAX_SIZE = 1 << 20
"""Largest plausible size in config.json; FLAN-T5-xxl's vocabulary, its largest number, has 32,128."""
MAX_LAYERS = 1024
"""FLAN-T5-xxl has 24. Without a bound, a damaged number would make this list tensors for hours."""

_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers")
HEAD = "lm_head.weight"

_POSITION_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`. Raises BaseFormatError where it is missing, no JSON, or not a gated T5's."""
    path = folder / "config.json"
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(MAX_CONFIG_BYTES))
    except OSError as error:
        reason = error.strerror or str(error)
        raise BaseFormatError(f"cannot read {path} ({reason}); a base is a folder with config.json in it") from error
    except (ValueError, RecursionError) as error:
        raise BaseFormatError(f"{path} is not valid JSON ({error}); copy or download the base again") from error
    if not isinstance(config, dict) or config.get("model_type") != "t5":
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise BaseFormatError(f"{path} is not a T5's (model_type {kind!r}); use a FLAN-T5 or T5 v1.1 base")
    _check_config(path, config)
    return config


def may_tie(config: Mapping[str, Any]) -> bool:
    """Whether the output layer may be missing because it is the embedding itself. True where config.json is silent.

    It proves nothing when true: transformers 5 writes it for every T5, untied ones included. The files decide.
    """
    return config.get("tie_word_embeddings") is not False


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of an untied model, by full parameter name."""
    embedding = (config["vocab_size"], config["d_model"])
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": embedding, HEAD: embedding}
    n_layers = {"encoder": config["num_layers"], "decoder": config.get("num_decoder_layers") or config["num_layers"]}
    for side, n in n_layers.items():
        for i in range(n):
            shapes |= _block_shapes(f"{side}.block.{i}.layer", config, cross=side == "decoder")
        buckets = config.get("relative_attention_num_buckets", 32)
        shapes[f"{side}.block.0.{_POSITION_BIAS}"] = (buckets, config["num_heads"])
        shapes[f"{side}.final_layer_norm.weight"] = (config["d_model"],)
    return shapes


def is_matrix(name: str) -> bool:
    """Whether a parameter is a linear or embedding matrix, to be quantised; norms and position tables are not."""
    return not name.endswith(("layer_norm.weight", "relative_attention_bias.weight"))


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    for key in (*_SIZES, "num_decoder_layers", "relative_attention_num_buckets"):
        value, most = config.get(key), MAX_LAYERS if key.endswith("layers") else MAX_SIZE
        if value is None and key not in _SIZES:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise BaseFormatError(f"{path} is not a T5's: {key} is {value!r}, a number in 1…{most} is needed")
    gated = config.get("is_gated_act", str(config.get("feed_forward_proj", "")).startswith("gated-"))
    if not gated:
        raise BaseFormatError(f"{path} is a T5 v1.0's (no gated feed-forward); use a FLAN-T5 or T5 v1.1 base")


def _block_shapes(prefix: str, config: Mapping[str, Any], *, cross: bool) -> dict[str, tuple[int, ...]]:
    d_model, d_ff, inner = config["d_model"], config["d_ff"], config["d_kv"] * config["num_heads"]
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
