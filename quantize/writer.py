"""Write a base folder tensor by tensor, so that converting takes the memory of one tensor, not of the model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from braid_common.base.files import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE
from braid_common.base.safetensors_header import LENGTH_BYTES
from braid_common.base.t5_layout import is_matrix
from braid_common.base.weights import (
    ABSMAX_SUFFIX,
    BLOCKS_STORAGE,
    ROWS_STORAGE,
    SCALE_SUFFIX,
    STORAGE_KEY,
    packed_sizes,
)
from quantize.base import matrix_type, read_weight
from quantize.checkpoint import Checkpoint, open_checkpoint
from quantize.entry import DTYPES
from quantize.errors import BaseFormatError
from quantize.formats import FORMATS
from quantize.int8 import Int8Weight
from quantize.nf4 import Nf4Weight
from quantize.weight import Scratch

_STORAGES = {"int8": ROWS_STORAGE, "nf4": BLOCKS_STORAGE}
_FLOAT_CODES = {"fp32": "F32", "bf16": "BF16"}
_METADATA = {"format": "pt"}  # what transformers looks for
_COPIED_SUFFIXES = frozenset((".json", ".model", ".txt", ".md"))  # tokenizer, generation settings, model card


@dataclass(frozen=True)
class Place:
    """A tensor in the header. `dtype` is safetensors' name for it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Part:
    """Tensors that are made together, such as codes and their scales, and how to get them when their turn comes."""

    places: tuple[Place, ...]
    read: Callable[[], tuple[Tensor, ...]]


Tell = Callable[[int, int], object]
"""Told after each tensor: bytes written, bytes in all."""


def silent(written_bytes: int, total_bytes: int) -> None:
    """Nobody is told."""


def convert(source: Path, format: str, out: Path, *, tell: Tell = silent) -> None:
    """Write the base in `source` to the new folder `out`, stored in one of FORMATS.

    fp32 and bf16 folders are plain Hugging Face ones; int8 and nf4 are read by `load_base` alone, which gives the very
    weights that it makes of `source`. Tokenizer and other small files are copied. `out` appears whole or not at all.
    Raises BaseFormatError where `source` is no base, `out` exists, or the disk is full.
    """
    if format not in FORMATS:
        raise BaseFormatError(f"a base cannot be stored as {format!r}; choose one of {', '.join(FORMATS)}")
    if out.exists():
        raise BaseFormatError(f"{out} exists already; name a new folder")
    checkpoint = open_checkpoint(source)
    partial_out = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        partial_out.mkdir(parents=True)
        _copy_others(source, partial_out)
        (partial_out / CONFIG_FILE).write_text(json.dumps(_config(checkpoint.config_json, format), indent=2) + "\n")
        with (partial_out / WEIGHTS_FILE).open("wb") as file:
            write_tensors(file, list(_parts(checkpoint, format)), tell)
        partial_out.rename(out)
    except OSError as error:
        raise BaseFormatError(
            f"cannot write {out} ({error.strerror}); free some space or name another place"
        ) from error
    finally:
        shutil.rmtree(partial_out, ignore_errors=True)


def written_bytes(checkpoint: Checkpoint, format: str) -> int:
    """Size of the safetensors file that `convert` would write. Nothing is read."""
    places = [place for part in _parts(checkpoint, format) for place in part.places]
    return len(header(places, _METADATA)) + sum(place.size_bytes for place in places)


def _config(config: Mapping[str, Any], format: str) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in (STORAGE_KEY, "torch_dtype", "dtype")}
    if format in _STORAGES:
        return kept | {STORAGE_KEY: _STORAGES[format]}
    return kept | {"torch_dtype": {"fp32": "float32", "bf16": "bfloat16"}[format]}


def _copy_others(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in _COPIED_SUFFIXES and path.name not in (CONFIG_FILE, INDEX_FILE):
            shutil.copyfile(path, target / path.name)


def _parts(checkpoint: Checkpoint, format: str) -> Iterator[Part]:
    for name, shape in checkpoint.shapes.items():
        kind = matrix_type(name.removesuffix(".weight"), format) if is_matrix(name) else None
        if kind is Int8Weight:
            places = int8_places(name, shape)
        elif kind is Nf4Weight:
            n_codes, n_blocks = packed_sizes(prod(shape))
            places = Place(name, "U8", (n_codes,)), Place(name + ABSMAX_SUFFIX, "F32", (n_blocks,))
        else:
            dtype = _FLOAT_CODES.get(format, "F32")
            yield Part((Place(name, dtype, shape),), partial(_floats, checkpoint, name, DTYPES[dtype]))
            continue
        yield Part(places, partial(_codes, checkpoint, name, format))


def int8_places(name: str, shape: tuple[int, ...]) -> tuple[Place, Place]:
    """Places of the codes and the scales of int8 rows."""
    return Place(name, "I8", shape), Place(name + SCALE_SUFFIX, "F32", shape[:1])


def _floats(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> tuple[Tensor]:
    return (checkpoint.floats(name, dtype),)


def _codes(checkpoint: Checkpoint, name: str, format: str) -> tuple[Tensor, Tensor]:
    weight = read_weight(checkpoint, name, format, Scratch())
    if isinstance(weight, Nf4Weight):
        return weight.codes, weight.absmax
    assert isinstance(weight, Int8Weight)
    return weight.codes, weight.scales


def write_tensors(file: BinaryIO, parts: list[Part], tell: Tell = silent) -> None:
    """The safetensors layout: 8 bytes length of the JSON header, the header, then the data in the header's order."""
    places = [place for part in parts for place in part.places]
    total_bytes = sum(place.size_bytes for place in places)
    file.write(header(places, _METADATA))
    done_bytes = 0
    for part in parts:
        for tensor in part.read():
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
            done_bytes += tensor.nbytes
        tell(done_bytes, total_bytes)
    file.flush()
    os.fsync(file.fileno())


def header(places: Sequence[Place], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file up to the first tensor, the header's length included; the tensors follow without gaps."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for place in places:
        end = offset + place.size_bytes
        fields[place.name] = {"dtype": place.dtype, "shape": list(place.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields).encode()
    text += b" " * (-len(text) % 8)  # the format asks for aligned data
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
