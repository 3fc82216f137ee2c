"""Write a base folder tensor by tensor, so that converting takes the memory of one tensor, not of the model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from quantize.checkpoint import (
    INDEX_FILE,
    ROWS_STORAGE,
    SCALE_SUFFIX,
    SINGLE_FILE,
    STORAGE_KEY,
    Checkpoint,
    open_checkpoint,
)
from quantize.errors import BaseFormatError
from quantize.formats import WRITABLE
from quantize.int8 import Int8Weight, to_int8
from quantize.layout import is_matrix

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int8: "I8"}
_COPIED_SUFFIXES = frozenset((".json", ".model", ".txt", ".md"))  # tokenizer, generation settings, model card


@dataclass(frozen=True)
class Part:
    """A tensor to be written: its place in the header, and how to get it when its turn comes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @property
    def size_bytes(self) -> int:
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


def convert(source: Path, format: str, out: Path) -> None:
    """Write the base in `source` to the new folder `out`, stored as fp32, bf16 or int8 rows.

    fp32 and bf16 folders are plain Hugging Face ones. Tokenizer and other small files are copied. `out` appears whole
    or not at all. Raises BaseFormatError where `source` is no base, `out` exists, or the disk is full.
    """
    if format not in WRITABLE:
        raise BaseFormatError(f"a base cannot be stored as {format!r}; choose one of {', '.join(WRITABLE)}")
    if out.exists():
        raise BaseFormatError(f"{out} exists already; name a new folder")
    checkpoint = open_checkpoint(source)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        _copy_others(source, partial)
        (partial / "config.json").write_text(json.dumps(_config(checkpoint.config, format), indent=2) + "\n")
        with (partial / SINGLE_FILE).open("wb") as file:
            write_tensors(file, list(_parts(checkpoint, format)))
        partial.rename(out)
    except OSError as error:
        raise BaseFormatError(
            f"cannot write {out} ({error.strerror}); free some space or name another place"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _config(config: Mapping[str, Any], format: str) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in (STORAGE_KEY, "torch_dtype", "dtype")}
    if format == "int8":
        return kept | {STORAGE_KEY: ROWS_STORAGE}
    return kept | {"torch_dtype": str(_DTYPES[format]).removeprefix("torch.")}


def _copy_others(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in _COPIED_SUFFIXES and path.name not in ("config.json", INDEX_FILE):
            shutil.copyfile(path, target / path.name)


def _parts(checkpoint: Checkpoint, format: str) -> Iterator[Part]:
    for name in checkpoint.names():
        shape = checkpoint.entries[name].shape
        if format == "int8" and is_matrix(name):
            rows = _Rows(checkpoint, name)
            yield Part(name, torch.int8, shape, rows.codes)
            yield Part(name + SCALE_SUFFIX, torch.float32, shape[:1], rows.scales)
        else:
            dtype = _DTYPES.get(format, torch.float32)
            yield Part(name, dtype, shape, _Floats(checkpoint, name, dtype).values)


@dataclass(frozen=True)
class _Floats:
    checkpoint: Checkpoint
    name: str
    dtype: torch.dtype

    def values(self) -> Tensor:
        with self.checkpoint.tensor(self.name) as stored:
            if isinstance(stored, Int8Weight):
                return stored.dense(self.dtype)
            return stored.to(self.dtype, copy=True)


@dataclass(frozen=True)
class _Rows:
    checkpoint: Checkpoint
    name: str

    def _packed(self) -> Int8Weight:
        with self.checkpoint.tensor(self.name) as stored:
            if isinstance(stored, Int8Weight):
                return Int8Weight(stored.codes.clone(), stored.scales)
            return to_int8(stored)

    def codes(self) -> Tensor:
        return self._packed().codes

    def scales(self) -> Tensor:
        return self._packed().scales  # read a second time: cheaper than keeping every scale until its turn


def write_tensors(file: BinaryIO, parts: list[Part]) -> None:
    """The safetensors layout: 8 bytes length of the JSON header, the header, then the data in the header's order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for part in parts:
        end = offset + part.size_bytes
        header[part.name] = {"dtype": _CODES[part.dtype], "shape": list(part.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format asks for aligned data
    file.write(len(text).to_bytes(8, "little") + text)
    for part in parts:
        file.write(part.read().contiguous().flatten().view(torch.uint8).numpy().data)
    file.flush()
    os.fsync(file.fileno())
