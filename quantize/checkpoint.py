"""A base's safetensors on disk, read one tensor at a time and checked against the layout before anything is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from quantize.errors import BaseFormatError
from quantize.int8 import Int8Weight
from quantize.layout import HEAD, may_tie, read_config, tensor_shapes

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
STORAGE_KEY = "braid_storage"
"""Key in config.json that names how the tensors are stored: absent (plain floats) or ROWS_STORAGE."""
ROWS_STORAGE = "int8-rows"
"""int8 matrices `NAME` with float32 `NAME.row_scale` of shape (rows,): value = int8 · row_scale[row]."""
SCALE_SUFFIX = ".row_scale"
MAX_INDEX_BYTES = 16 << 20
"""The index of FLAN-T5-xxl has 60 kB."""
MAX_NAMED = 3
"""Tensors that one error names; a wrong model would list hundreds."""

_FLOATS = frozenset(("F64", "F32", "F16", "BF16"))
_DUPLICATES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of `shared`, in some checkpoints
# Held by old T5 checkpoints and ignored by every T5 since transformers 2.
_IGNORED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies. `dtype` is safetensors' name for it."""

    path: Path
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Every tensor of the model, by full parameter name, its shape checked."""

    config: Mapping[str, Any]
    entries: Mapping[str, Entry]

    @property
    def is_tied(self) -> bool:
        """Whether the output layer is the embedding itself."""
        return HEAD not in self.entries

    def names(self) -> list[str]:
        """Parameters of the model in the layout's order, each once; scales and duplicates are left out."""
        return [name for name in tensor_shapes(self.config) if name in self.entries]

    @contextmanager
    def tensor(self, name: str) -> Iterator[Tensor | Int8Weight]:
        """One tensor as it is stored, valid inside the `with` only; copy what is kept.

        The file is mapped anew for each tensor: while one mapping lives, every page ever touched counts as resident,
        and reading through one would end with the whole checkpoint in memory (measured).
        Raises BaseFormatError where the bytes cannot be read or hold NaN or infinity.
        """
        stored = self._read(name)
        if self.entries[name].dtype == "I8":
            scales = self._read(name + SCALE_SUFFIX).to(torch.float32, copy=True)
            _check_finite(name + SCALE_SUFFIX, self.entries[name].path, scales)
            yield Int8Weight(stored, scales)
        else:
            _check_finite(name, self.entries[name].path, stored)
            yield stored

    def _read(self, name: str) -> Tensor:
        path = self.entries[name].path
        with _readable(path), safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a base folder. Raises BaseFormatError that names missing, extra or misshapen tensors."""
    config = read_config(folder)
    storage = config.get(STORAGE_KEY)
    if storage not in (None, ROWS_STORAGE):
        raise BaseFormatError(f"{folder} is stored as {storage!r}, which this version does not know; update braid")
    entries = _named_once(folder, _shard_paths(folder))
    _check_entries(folder, config, entries)
    return Checkpoint(config, entries)


def _shard_paths(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if not index.is_file():
        raise BaseFormatError(
            f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}; a base is a folder with safetensors "
            "(pickled pytorch_model.bin is never read)"
        )
    try:
        with index.open("rb") as file:
            files = set(json.loads(file.read(MAX_INDEX_BYTES))["weight_map"].values())
        if not all(isinstance(name, str) and Path(name).name == name for name in files):
            raise ValueError("a shard's name is not a plain file name")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseFormatError(f"{index} is damaged ({error}); copy or download the base again") from error
    return [folder / name for name in sorted(files)]


def _named_once(folder: Path, paths: list[Path]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for path in paths:
        for name, entry in _headers(path):
            if name in entries:
                raise BaseFormatError(f"{folder} holds {name} twice, in {entries[name].path.name} and {path.name}")
            entries[name] = entry
    if "shared.weight" not in entries and _DUPLICATES[0] in entries:
        raise BaseFormatError(
            f"{folder} holds {_DUPLICATES[0]} but not shared.weight; save it again with transformers' save_pretrained"
        )
    return entries


def _headers(path: Path) -> Iterator[tuple[str, Entry]]:
    with _readable(path), safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping: it cannot be iterated itself)
            part = file.get_slice(name)
            yield name, Entry(path, part.get_dtype(), tuple(part.get_shape()))


def _check_entries(folder: Path, config: Mapping[str, Any], entries: Mapping[str, Entry]) -> None:
    shapes = tensor_shapes(config)
    optional = dict.fromkeys(_DUPLICATES, shapes["shared.weight"])
    optional[_IGNORED] = shapes["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    allowed = shapes | optional
    if may_tie(config):
        del shapes[HEAD]
    if config.get(STORAGE_KEY) == ROWS_STORAGE:
        int8 = [name for name, entry in entries.items() if entry.dtype == "I8" and name in allowed]
        scales = {name + SCALE_SUFFIX: allowed[name][:1] for name in int8}
        shapes, allowed = shapes | scales, allowed | scales
    _name(folder, "lacks", sorted(shapes.keys() - entries.keys()))
    _name(folder, "has unknown", sorted(entries.keys() - allowed.keys()))
    for name, entry in entries.items():
        if entry.shape != allowed[name]:
            expected = list(allowed[name])
            raise BaseFormatError(f"{folder}: {name} has shape {list(entry.shape)}, config.json says {expected}")
        if entry.dtype not in _FLOATS and name + SCALE_SUFFIX not in allowed:
            raise BaseFormatError(f"{folder}: {name} is stored as {entry.dtype}, a float type is needed")


def _name(folder: Path, verb: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        raise BaseFormatError(
            f"{folder} {verb} tensor {', '.join(names[:MAX_NAMED])}{more}; its files and config.json do not belong "
            "together, or it is no T5 with a gated feed-forward"
        )


def _check_finite(name: str, path: Path, values: Tensor) -> None:
    low, high = torch.aminmax(values)  # NaN wins both; no temporary as isfinite would need
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise BaseFormatError(f"{path}: {name} holds NaN or infinity; copy or download the base again")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Map what safetensors and the file system raise for a bad file."""
    try:
        yield
    except FileNotFoundError as error:
        raise BaseFormatError(f"{path} is missing; copy or download the base again") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BaseFormatError(f"{path} is damaged or truncated ({error}); copy or download the base again") from error
