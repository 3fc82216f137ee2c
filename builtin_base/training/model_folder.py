"""Model folders: config, weights and tokenizer, packed in 8 bits as the wheel has them or plain in bf16."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from builtin_base.training import architecture, packing
from builtin_base.training.tokenizer import TOKENIZER_FILES

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's configuration."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return config


def read_sizes(folder: Path) -> dict[str, int]:
    """Read the sizes by which `architecture.config` describes a model folder's architecture."""
    return architecture.sizes(read_config(folder))


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read a model folder's weights in fp32, those that transformers repeats included."""
    stored = packing.unpack_weights(load_file(folder / WEIGHTS))
    weights = {name: value.float() for name, value in stored.items()}
    weights.update(dict.fromkeys(packing.REPEATED, weights["shared.weight"]))
    return weights


def load(folder: Path) -> tuple[T5ForConditionalGeneration, Tokenizer]:
    """Load a model folder, packed or plain, in fp32 and evaluation mode.

    Raises:
        RuntimeError: if a tensor is missing, extra or misshapen.
    """
    model = architecture.untied(T5Config(**read_config(folder)))
    model.load_state_dict(read_weights(folder))
    model.train(False)
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def write_packed(
    folder: Path, packed: Mapping[str, torch.Tensor], sizes: Mapping[str, int], tokenizer_folder: Path
) -> None:
    """Write a model folder of weights that `packing.pack_weights` packed, as the wheel has it."""
    _write(folder, packed, {"format": packing.FORMAT}, {**_config(sizes), "braid_storage": packing.STORAGE})
    copy_tokenizer(tokenizer_folder, folder)


def write_plain(
    folder: Path, weights: Mapping[str, torch.Tensor], sizes: Mapping[str, int], tokenizer_folder: Path
) -> None:
    """Write a model folder in bf16, as transformers reads it."""
    plain = {
        name: value.to(torch.bfloat16).contiguous() for name, value in weights.items() if name not in packing.REPEATED
    }
    _write(folder, plain, {"format": "pt"}, _config(sizes))
    copy_tokenizer(tokenizer_folder, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files from one folder to another."""
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)


def _config(sizes: Mapping[str, int]) -> dict[str, Any]:
    config = architecture.config(**sizes).to_dict()
    del config["transformers_version"]  # the same weights are the same folder, whoever wrote it
    # transformers 5 writes tie_word_embeddings = True for every T5
    return {**config, "architectures": ["T5ForConditionalGeneration"], "tie_word_embeddings": False}


def _write(
    folder: Path, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, str], config: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), folder / WEIGHTS, metadata=dict(metadata))
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes its file readable by its owner alone
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
