"""The config.json of a base: from its folder, which needs no weights for a plan, or of a FLAN-T5 by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from braid_common.base_files import CONFIG_FILE
from edge_client.base.locate import require_whole, resolve
from edge_client.errors import BaseModelError
from wire.errors import WireError
from wire.manifest import t5_weights

MAX_CONFIG_BYTES = 1 << 20
"""A config.json above this is none: FLAN-T5's have under 2 KB."""

_FIELDS = ("d_model", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
FLAN_T5: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "flan-t5-small": dict(zip(_FIELDS, (512, 1024, 8, 8, 6), strict=True)),
        "flan-t5-base": dict(zip(_FIELDS, (768, 2048, 12, 12, 12), strict=True)),
        "flan-t5-large": dict(zip(_FIELDS, (1024, 2816, 24, 24, 16), strict=True)),
        "flan-t5-xl": dict(zip(_FIELDS, (2048, 5120, 24, 24, 32), strict=True)),
    }
)
"""Sizes as published on the Hugging Face hub; a test holds them equal to those of quantize/random_base.py,
which needs torch."""

_HINT = "give a folder that holds a FLAN-T5's config.json, or one of " + ", ".join(FLAN_T5)


def base_config(model: str) -> Mapping[str, Any]:
    """The config of `--model`: a folder with config.json, "builtin", a name in FLAN_T5, or a hub id.

    Raises BaseModelError where there is none, where it is not a gated T5's, or where weights beside it are truncated.
    """
    if model in FLAN_T5 and not Path(model).is_dir():
        return _flan_t5(model)
    folder = resolve(model)
    require_whole(folder)
    config = _read(folder / CONFIG_FILE)
    try:
        t5_weights(config, "all")
    except WireError as error:
        raise BaseModelError(str(error), _HINT) from error
    vocabulary = config.get("vocab_size")
    if type(vocabulary) is not int or vocabulary < 1:
        raise BaseModelError(f"{folder / CONFIG_FILE} is not a T5's: vocab_size is missing", _HINT)
    return config


def _flan_t5(name: str) -> dict[str, Any]:
    common = {"model_type": "t5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return {**common, "vocab_size": 32128, "d_kv": 64, **FLAN_T5[name]}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
        config = json.loads(text) if len(text) <= MAX_CONFIG_BYTES else None
    except OSError as error:
        raise BaseModelError(f"{path} cannot be read: {error.strerror}", _HINT) from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; thousands of nested brackets
        raise BaseModelError(f"{path} is not JSON: {error}", _HINT) from error
    if not isinstance(config, dict):
        raise BaseModelError(f"{path} holds no JSON object", _HINT)
    return config
