"""Whole bases on disk whose weights mean nothing: all that a server checks of one, written without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from braid_common.base.files import CONFIG_FILE, INDEX_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from braid_common.base.safetensors_header import DTYPE_BYTES, LENGTH_BYTES
from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes

Shapes = Mapping[str, Sequence[int]]


PATTERN = bytes(range(251))
"""Bytes that weights are made of: of a length that no block has, so that a misplaced part shows; in every float type
they are finite."""


def write_base(folder: Path, config: Mapping[str, Any], *, shards: int = 1, dtype: str = "BF16") -> None:
    """Write config.json, tokenizer.json and weights of a type, in one file or in `shards` with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(dict(config)))
    numbers = T5Config.parse(config)
    (folder / TOKENIZER_FILE).write_text(json.dumps(word_tokenizer(numbers.vocab_size)))
    shapes = tensor_shapes(numbers)
    if shards == 1:
        write_weights(folder / WEIGHTS_FILE, shapes, dtype)
        return
    files = [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(1, shards + 1)]
    weight_map = {name: files[i % shards] for i, name in enumerate(shapes)}
    for file in files:
        write_weights(folder / file, {name: shapes[name] for name in shapes if weight_map[name] == file}, dtype)
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_weights(path: Path, shapes: Shapes, dtype: str = "BF16") -> None:
    """Write a safetensors file of tensors that are filled with PATTERN."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    data = (PATTERN * (end // len(PATTERN) + 1))[:end]
    path.write_bytes(len(text).to_bytes(LENGTH_BYTES, "little") + text + data)


def word_tokenizer(n_pieces: int) -> dict[str, Any]:
    """A tokenizer.json of whole words, with T5's ids for padding, the end and the unknown."""
    pieces = ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(n_pieces - 3))]
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {piece: i for i, piece in enumerate(pieces)}, "unk_token": "<unk>"},
    }
