"""Small bases on disk, written without transformers: a random gated T5 whose every matrix is non-square."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes

SMALL: dict[str, Any] = {
    "model_type": "t5",
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "vocab_size": 120,
    "d_model": 64,
    "num_heads": 3,
    "d_kv": 16,
    "d_ff": 80,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}

MakeBase = Callable[..., Path]


def random_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of the model that `config` describes, fp32."""
    generator = torch.Generator().manual_seed(seed)
    shapes = tensor_shapes(T5Config.parse(config))
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def config() -> dict[str, Any]:
    """A small base's config.json, to be changed by the test."""
    return dict(SMALL)


@pytest.fixture
def tensors(config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of `config`, to be changed by the test."""
    return random_tensors(config)


@pytest.fixture
def random_base() -> Callable[..., dict[str, Tensor]]:
    """Makes the tensors of any config."""
    return random_tensors


@pytest.fixture
def make_base(tmp_path: Path) -> MakeBase:
    """Writes a base folder from a config and tensors and returns its path."""

    def make(config: dict[str, Any], tensors: dict[str, Tensor], name: str = "base") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "model.safetensors")
        return folder

    return make
