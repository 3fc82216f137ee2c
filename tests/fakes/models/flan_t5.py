"""FLAN-T5's repositories as the hub has them: every file name, config.json, and weights that are not trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import tensor_shapes
from tests.fakes.hub import FakeHub, Repo

SMALL, XL = "google/flan-t5-small", "google/flan-t5-xl"

TINY = {"d_model": 48, "d_ff": 80, "d_kv": 16, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}
"""Sizes that replace FLAN-T5's where weights must be real ones."""

SMALL_VOCABULARY = 100
"""Pieces of `word_tokenizer`."""

NOT_FETCHED = {
    ".gitattributes": b"*.bin filter=lfs\n",
    "README.md": b"# FLAN-T5\n",
    "flax_model.msgpack": b"flax",
    "generation_config.json": b'{"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}',
    "pytorch_model.bin": b"pickle",
    "special_tokens_map.json": b"{}",
    "spiece.model": b"sentencepiece",
    "tf_model.h5": b"tensorflow",
    "tokenizer_config.json": b'{"tokenizer_class": "T5Tokenizer"}',
}
"""Files of google/flan-t5-small beside those that a base needs."""


def config_json(**sizes: Any) -> bytes:
    """config.json as google/flan-t5-small has it."""
    facts = {
        "architectures": ["T5ForConditionalGeneration"],
        "d_ff": 1024,
        "d_kv": 64,
        "d_model": 512,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "n_positions": 512,
        "num_decoder_layers": 8,
        "num_heads": 6,
        "num_layers": 8,
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "task_specific_params": {"summarization": {"max_length": 200, "num_beams": 4, "prefix": "summarize: "}},
        "tie_word_embeddings": False,
        "transformers_version": "4.23.1",
        "use_cache": True,
        "vocab_size": 32128,
    }
    return json.dumps(facts | sizes, indent=2).encode()


def small_repo(weights: bytes | Path = b"small's weights " * 4096, tokenizer: bytes = b"{}", **sizes: Any) -> Repo:
    """google/flan-t5-small: one file of weights."""
    files = {"config.json": config_json(**sizes), "tokenizer.json": tokenizer, "model.safetensors": weights}
    return Repo(NOT_FETCHED | files)


def xl_repo(shards: Mapping[str, bytes | Path] | None = None, tokenizer: bytes = b"{}", **sizes: Any) -> Repo:
    """google/flan-t5-xl: two shards of weights with their index."""
    shards = shards or {f"model-0000{i}-of-00002.safetensors": b"shard %d " % i * 4096 for i in (1, 2)}
    files: dict[str, bytes | Path] = {"config.json": config_json(**sizes), "tokenizer.json": tokenizer, **shards}
    if "model.safetensors.index.json" not in shards:
        index = {"metadata": {"total_size": 9}, "weight_map": {f"w{i}": name for i, name in enumerate(shards)}}
        files["model.safetensors.index.json"] = json.dumps(index).encode()
    others = {f"pytorch_model-0000{i}-of-00002.bin": b"pickle" for i in (1, 2)}
    return Repo({**NOT_FETCHED, **others, "pytorch_model.bin.index.json": b"{}", **files})


def tiny_small_repo(vocabulary: int = SMALL_VOCABULARY, tokenizer: bytes = b"") -> Repo:
    """google/flan-t5-small as a base that loads and trains, of 100 words unless a tokenizer is given."""
    sizes = {**TINY, "vocab_size": vocabulary}
    weights = save(random_tensors(sizes), {"format": "pt"})
    return small_repo(weights, tokenizer or word_tokenizer(vocabulary), **sizes)


def tiny_xl_repo(vocabulary: int = SMALL_VOCABULARY, tokenizer: bytes = b"") -> Repo:
    """google/flan-t5-xl as a base that loads and trains: the encoder in one shard, the decoder in the other."""
    sizes = {**TINY, "vocab_size": vocabulary}
    shards: dict[str, dict[str, Any]] = {f"model-0000{i}-of-00002.safetensors": {} for i in (1, 2)}
    places = {}
    for name, tensor in random_tensors(sizes).items():
        places[name] = list(shards)[name.startswith(("decoder", "lm_head"))]
        shards[places[name]][name] = tensor
    files: dict[str, bytes | Path] = {name: save(tensors, {"format": "pt"}) for name, tensors in shards.items()}
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": places}).encode()
    return xl_repo(files, tokenizer or word_tokenizer(vocabulary), **sizes)


def random_tensors(sizes: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor of a FLAN-T5 with these sizes, drawn as T5 begins: logits are neither flat nor one-sided."""
    config = T5Config.parse(json.loads(config_json(**sizes)))
    generator, tensors = np.random.default_rng(7), {}
    for name, shape in tensor_shapes(config).items():
        scale = 1.0 if name == "shared.weight" else float(shape[-1]) ** -0.5
        scale *= float(config.d_kv) ** -0.5 if name.endswith(".q.weight") else 1.0
        drawn = generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        tensors[name] = np.ones(shape, np.float32) if len(shape) == 1 else drawn
    return tensors


def word_tokenizer(vocabulary: int = SMALL_VOCABULARY) -> bytes:
    """tokenizer.json of whole words w0, w1… split at white space, with T5's special pieces."""
    special = ("<pad>", "</s>", "<unk>")
    pieces = (*special, *(f"w{i}" for i in range(vocabulary - len(special))))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": piece, **flags} for i, piece in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {piece: i for i, piece in enumerate(pieces)}, "unk_token": "<unk>"},
    }
    return json.dumps(document).encode()


def use_hub(monkeypatch: Any, hub: FakeHub, home: Path) -> Path:
    """Let huggingface_hub in this process ask `hub` and keep its files below `home`. Its cache folder.

    The library reads its settings when it is loaded, which another test may have done.
    """
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return home / "hub"


def hub_environment(hub: FakeHub, home: Path) -> dict[str, str]:
    """The same as variables for processes."""
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
