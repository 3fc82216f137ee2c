"""The frozen base in 32, 16, 8 or 4 bits, loaded part by part: a full-precision copy of the model never exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantize.checkpoint import Checkpoint, open_checkpoint
from quantize.errors import BaseFormatError
from quantize.formats import FORMATS
from quantize.int8 import Int8Weight, to_int8
from quantize.layout import is_matrix
from quantize.nf4 import to_nf4
from quantize.weight import DenseWeight, FrozenWeight

__all__ = ["FORMATS", "BaseFormatError", "FrozenBase", "FrozenWeight", "load_base"]

CPU = torch.device("cpu")

EMBEDDINGS = ("shared", "lm_head")
"""Kept in int8 rows when the format is nf4: they decide the logits, and rows are looked up one by one."""


@dataclass(frozen=True)
class FrozenBase:
    """A base in memory.

    Attributes:
        config: the parsed config.json.
        format: one of FORMATS.
        weights: linear and embedding matrices by parameter name without ".weight", such as "shared", "lm_head" or
            "encoder.block.0.layer.0.SelfAttention.q". Where word embeddings are tied, "lm_head" is the object "shared".
        plain: norm scales and relative-position tables, fp32, by full parameter name.
    """

    config: Mapping[str, Any]
    format: str
    weights: Mapping[str, FrozenWeight]
    plain: Mapping[str, Tensor]

    @property
    def resident_bytes(self) -> int:
        """Memory that the tensors hold; a tied matrix counts once."""
        distinct = {id(weight): weight.resident_bytes for weight in self.weights.values()}
        return sum(distinct.values()) + sum(tensor.nbytes for tensor in self.plain.values())


def load_base(
    folder: Path,
    format: str,
    *,
    wanted: Callable[[str], bool] = lambda name: True,
    device: torch.device = CPU,
) -> FrozenBase:
    """Load a base folder (config.json and safetensors, single or sharded) in `format`, tensor by tensor to `device`.

    `wanted` is asked with the name under which a tensor would appear in `weights` or `plain`; what it refuses is not
    read, but must be in the files all the same. Peak memory is the result plus the largest stored tensor plus a few
    chunks of `weight.CHUNK_VALUES` values.

    Raises BaseFormatError for an unknown format; for files that are missing, truncated or damaged; for tensors that
    are missing, extra, misshapen or not finite; for a config.json that is not a gated T5's.
    """
    if format not in FORMATS:
        raise BaseFormatError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    checkpoint = open_checkpoint(folder)
    weights: dict[str, FrozenWeight] = {}
    plain: dict[str, Tensor] = {}
    for name in checkpoint.names():
        key = name.removesuffix(".weight")
        if not is_matrix(name):
            if wanted(name):
                plain[name] = _plain(checkpoint, name).to(device)
        elif wanted(key):
            weights[key] = _weight(checkpoint, name, format).to(device)
    if checkpoint.is_tied and wanted("lm_head"):
        weights["lm_head"] = weights.get("shared") or _weight(checkpoint, "shared.weight", format).to(device)
    return FrozenBase(checkpoint.config, format, weights, plain)


def pack(values: Tensor, key: str, format: str) -> FrozenWeight:
    """Put one matrix of any float dtype, named `key` as in FrozenBase.weights, into `format`. Shares no memory."""
    if format == "int8" or (format == "nf4" and key in EMBEDDINGS):
        return to_int8(values)
    if format == "nf4":
        return to_nf4(values)
    dtype = torch.float32 if format == "fp32" else torch.bfloat16
    return DenseWeight(values.to(dtype, copy=True))


def _weight(checkpoint: Checkpoint, name: str, format: str) -> FrozenWeight:
    key = name.removesuffix(".weight")
    with checkpoint.tensor(name) as stored:
        if not isinstance(stored, Int8Weight):
            return pack(stored, key, format)
        if format == "int8" or (format == "nf4" and key in EMBEDDINGS):
            return Int8Weight(stored.codes.clone(), stored.scales)  # lossless
        dense = stored.dense(torch.float32)
        return DenseWeight(dense) if format == "fp32" else pack(dense, key, format)


def _plain(checkpoint: Checkpoint, name: str) -> Tensor:
    with checkpoint.tensor(name) as stored:
        if isinstance(stored, Int8Weight):
            return stored.dense(torch.float32)
        return stored.to(torch.float32, copy=True)
