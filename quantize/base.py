"""The frozen base in 32, 16, 8 or 4 bits, loaded part by part: a full-precision copy of the model never exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import is_matrix
from quantize.checkpoint import Checkpoint, open_checkpoint
from quantize.errors import BaseFormatError
from quantize.formats import FORMATS, Format
from quantize.int8 import Int8Weight, int8_of_chunks
from quantize.nf4 import Nf4Weight, nf4_of_chunks
from quantize.weight import CPU, Chunks, DenseWeight, FrozenWeight, Scratch, dense_of_chunks, matrix_chunks, row_chunks

__all__ = ["FORMATS", "BaseFormatError", "FrozenBase", "FrozenWeight", "load_base"]

EMBEDDINGS = ("shared", "lm_head")
"""Kept in int8 rows when the format is nf4: they decide the logits, and rows are looked up one by one."""


@dataclass(frozen=True)
class FrozenBase:
    """A base in memory.

    Attributes:
        config: the model's numbers.
        format: one of FORMATS.
        weights: linear and embedding matrices by parameter name without ".weight", such as "shared", "lm_head" or
            "encoder.block.0.layer.0.SelfAttention.q". Where word embeddings are tied, "lm_head" is the object "shared".
        plain: norm scales and relative-position tables, fp32, by full parameter name.
    """

    config: T5Config
    format: Format
    weights: Mapping[str, FrozenWeight]
    plain: Mapping[str, Tensor]

    @property
    def resident_bytes(self) -> int:
        """Memory that the tensors hold; a tied matrix counts once."""
        distinct = {id(weight): weight.resident_bytes for weight in self.weights.values()}
        return sum(distinct.values()) + sum(tensor.nbytes for tensor in self.plain.values())

    def part(self, wanted: Callable[[str], bool]) -> FrozenBase:
        """The tensors that `wanted` takes by name, as `load_base` would load them; the memory is shared."""
        weights = {name: weight for name, weight in self.weights.items() if wanted(name)}
        plain = {name: tensor for name, tensor in self.plain.items() if wanted(name)}
        return replace(self, weights=weights, plain=plain)


def load_base(
    folder: Path,
    format: str,
    *,
    wanted: Callable[[str], bool] = lambda name: True,
    device: torch.device = CPU,
) -> FrozenBase:
    """Load a base folder (config.json and safetensors, single or sharded) in `format`, tensor by tensor to `device`.

    `wanted` is asked with the name under which a tensor would appear in `weights` or `plain`; what it refuses is not
    read, but must be in the files all the same. Peak memory is the result plus a few chunks of `weight.CHUNK_VALUES`
    values, and, where codes are put into another format, the codes of one tensor.

    Raises BaseFormatError for an unknown format; for files that are missing, truncated or damaged; for tensors that
    are missing, extra, misshapen or not finite; for a config.json that is not a gated T5's.
    """
    if format not in FORMATS:
        raise BaseFormatError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    checkpoint = open_checkpoint(folder)
    scratch = Scratch()  # temporaries that come and go between tensors that stay would leave holes in the heap
    weights: dict[str, FrozenWeight] = {}
    plain: dict[str, Tensor] = {}
    for name in checkpoint.shapes:
        key = name.removesuffix(".weight")
        if not is_matrix(name):
            if wanted(name):
                plain[name] = checkpoint.floats(name, torch.float32).to(device)
        elif wanted(key):
            weights[key] = read_weight(checkpoint, name, format, scratch).to(device)
    if checkpoint.is_tied and wanted("lm_head"):
        weights["lm_head"] = weights.get("shared") or read_weight(checkpoint, "shared.weight", format, scratch).to(
            device
        )
    return FrozenBase(checkpoint.config, format, weights, plain)


def pack(values: Tensor, key: str, format: str) -> FrozenWeight:
    """Put one matrix of any float dtype, named `key` as in FrozenBase.weights, into `format`. Shares no memory."""
    rows, columns = values.shape
    return _pack_chunks((rows, columns), matrix_chunks(values), key, format, Scratch())


def read_weight(checkpoint: Checkpoint, name: str, format: str, scratch: Scratch) -> FrozenWeight:
    """One matrix of a checkpoint, by full parameter name, in `format`.

    Memory beside the result: a few chunks, and where codes are put into another format those codes. Codes that are
    stored in `format` come without a change.
    """
    key, packed = name.removesuffix(".weight"), checkpoint.packed(name)
    if packed is None:
        rows, columns = checkpoint.shapes[name]
        return _pack_chunks((rows, columns), checkpoint.chunks(name, scratch), key, format, scratch)
    if isinstance(packed, matrix_type(key, format)):
        return packed
    chunks = (packed.dense_rows(rows, torch.float32, scratch) for rows in row_chunks(*packed.shape))
    return _pack_chunks(packed.shape, chunks, key, format, scratch)


def matrix_type(key: str, format: str) -> type[DenseWeight] | type[Int8Weight] | type[Nf4Weight]:
    """The class by which `format` holds the matrix `key`: nf4 holds the embeddings as int8 rows, else as named.

    So `wo`, the feed-forward's second matrix, may be in 8 or 4 bits. The formats are weight-only: what is multiplied is
    the unpacked matrix and the activations in fp32 or bf16. Activations are never rounded to 8 bits, and those that go
    into `wo` above all must not be: they are T5's largest, and overflow fp16.
    """
    if format == "int8" or (format == "nf4" and key in EMBEDDINGS):
        return Int8Weight
    return Nf4Weight if format == "nf4" else DenseWeight


def _pack_chunks(shape: tuple[int, int], chunks: Chunks, key: str, format: str, scratch: Scratch) -> FrozenWeight:
    kind = matrix_type(key, format)
    if kind is Int8Weight:
        return int8_of_chunks(shape, chunks)
    if kind is Nf4Weight:
        return nf4_of_chunks(shape, chunks, scratch)
    return dense_of_chunks(shape, chunks, torch.float32 if format == "fp32" else torch.bfloat16)
