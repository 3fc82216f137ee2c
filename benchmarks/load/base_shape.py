"""A base of FLAN-T5-base's shape whose every weight is zero, in a file that takes no room: it is one hole."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from braid_common.base.files import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from braid_common.base.safetensors_header import DTYPE_BYTES, LENGTH_BYTES
from braid_common.base.t5_config import FLAN_T5, T5Config
from braid_common.base.t5_layout import tensor_shapes

DTYPE = "BF16"


def write_base(folder: Path, name: str = "flan-t5-base") -> None:
    """Write config.json, tokenizer.json and weights: all that a server asks of a base."""
    folder.mkdir(parents=True, exist_ok=True)
    config = FLAN_T5[name]
    (folder / CONFIG_FILE).write_text(json.dumps(_config(config)))
    (folder / TOKENIZER_FILE).write_text(json.dumps(_tokenizer(config.vocab_size)))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor, shape in tensor_shapes(config).items():
        start, end = end, end + prod(shape) * DTYPE_BYTES[DTYPE]
        header[tensor] = {"dtype": DTYPE, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / WEIGHTS_FILE).open("wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        file.truncate(LENGTH_BYTES + len(text) + end)


def _config(config: T5Config) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "num_heads": config.n_heads,
        "num_layers": config.n_encoder_blocks,
        "num_decoder_layers": config.n_decoder_blocks,
    }


def _tokenizer(n_pieces: int) -> dict[str, Any]:
    """A tokenizer of whole words, with T5's ids for padding, the end and the unknown."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(min(n_pieces, 1000) - 3))]
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {piece: i for i, piece in enumerate(pieces)}, "unk_token": "<unk>"},
    }
