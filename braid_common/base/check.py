"""The judgement on a base's folder, the same wherever a base enters: all that a board will need of it, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from braid_common.base.files import parse_t5_config, read_config_json
from braid_common.base.safetensors_header import StoredTensor
from braid_common.base.t5_config import T5Config
from braid_common.base.tokenizer import check_tokenizer
from braid_common.base.weights import read_weights


@dataclass(frozen=True)
class CheckedBase:
    """A base that boards can train on: its numbers, and where each tensor lies."""

    config: T5Config
    tensors: Mapping[str, StoredTensor]


def check_base(folder: Path) -> CheckedBase:
    """Judge config.json, weights and tokenizer.json, and whether they belong together. No tensor is read.

    Raises BaseFilesError, one sentence that names the file or key and says what to do.
    """
    config_json = read_config_json(folder)
    config = parse_t5_config(folder, config_json)
    tensors = read_weights(folder, config, config_json)
    check_tokenizer(folder, config)
    return CheckedBase(config, tensors)
