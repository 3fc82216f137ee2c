"""A whole base of the smallest sizes, whose weights mean nothing: all that is checked of one is there."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from braid_common.base.files import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from braid_common.base.safetensors_header import DTYPE_BYTES, LENGTH_BYTES
from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes

CONFIG = T5Config(
    vocab_size=20,
    d_model=12,
    d_kv=4,
    d_ff=16,
    n_heads=2,
    n_encoder_blocks=1,
    n_decoder_blocks=1,
    n_buckets=4,
    max_distance=8,
)
"""Nothing is square: 12, 8 and 16."""

_DTYPE = "BF16"


def write_tiny_base(folder: Path) -> None:
    """Write config.json, tokenizer.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_bytes(config_json())
    (folder / TOKENIZER_FILE).write_bytes(tokenizer_json())
    (folder / WEIGHTS_FILE).write_bytes(weights())


def config_json() -> bytes:
    return json.dumps(CONFIG.to_json()).encode()


def tokenizer_json() -> bytes:
    """Whole words, with T5's ids for padding, the end and the unknown."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(CONFIG.vocab_size - 3))]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return json.dumps(
        {"added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}}
    ).encode()


def weights() -> bytes:
    """A safetensors file of zeros."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in tensor_shapes(CONFIG).items():
        start, end = end, end + prod(shape) * DTYPE_BYTES[_DTYPE]
        header[name] = {"dtype": _DTYPE, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + bytes(end)
