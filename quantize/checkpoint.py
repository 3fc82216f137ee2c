"""A base's safetensors on disk, checked against the layout before a tensor is read, then read a few rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from braid_common.base_files import BaseFilesError, parse_t5_config, read_config_json
from braid_common.t5_config import T5Config
from quantize.entry import DTYPES, Entry, read_entries
from quantize.errors import BaseFormatError
from quantize.int8 import Int8Weight
from quantize.layout import HEAD, is_matrix, tensor_shapes
from quantize.nf4 import Nf4Weight, packed_sizes
from quantize.weight import CPU, Scratch, dense_of_chunks, row_chunks

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
STORAGE_KEY = "braid_storage"
"""Key in config.json that names how the matrices are stored: absent (plain floats), ROWS_STORAGE or BLOCKS_STORAGE."""
ROWS_STORAGE = "int8-rows"
"""int8 matrices `NAME` with float32 `NAME.row_scale` of shape (rows,): value = int8 · row_scale[row]."""
BLOCKS_STORAGE = "nf4-blocks"
"""Matrices are uint8 `NAME` of shape (⌈rows·columns/2⌉,) with float32 `NAME.absmax` of shape (⌈rows·columns/64⌉,), as
Nf4Weight holds them; the embeddings are int8 rows as above."""
SCALE_SUFFIX = ".row_scale"
ABSMAX_SUFFIX = ".absmax"
STORED_FORMATS: Mapping[str | None, str] = {ROWS_STORAGE: "int8", BLOCKS_STORAGE: "nf4"}
MAX_INDEX_BYTES = 16 << 20
"""The index of FLAN-T5-xxl has 60 kB."""
MAX_NAMED = 3
"""Tensors that one error names; a wrong model would list hundreds."""

_FLOATS = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_DUPLICATES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of `shared`, in some checkpoints
# Held by old T5 checkpoints and ignored by every T5 since transformers 2.
_IGNORED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@dataclass(frozen=True)
class Checkpoint:
    """Every tensor of the model, by full parameter name, its shape checked.

    Attributes:
        config: the model's numbers.
        config_json: the whole object in config.json, values that are not the model's unchecked.
        shapes: shape of each of the model's parameters in the layout's order; scales and duplicates are left out.
        entries: everything in the files, by its name there, shaped as it is stored.
    """

    config: T5Config
    config_json: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    entries: Mapping[str, Entry]

    @property
    def is_tied(self) -> bool:
        """Whether the output layer is the embedding itself."""
        return HEAD not in self.shapes

    @property
    def stored_format(self) -> str:
        """The format the matrices are stored in: one of FORMATS, "fp64" or "fp16"; of mixed floats the embedding's."""
        packed = STORED_FORMATS.get(self.config_json.get(STORAGE_KEY))
        return packed or _FLOATS[self.entries["shared.weight"].dtype]

    def packed(self, name: str) -> Int8Weight | Nf4Weight | None:
        """A tensor that is stored in codes, as it is stored; None where it is stored in floats.

        Raises BaseFormatError where the bytes cannot be read or a scale is NaN or infinite.
        """
        entry = self.entries[name]
        if entry.dtype == "I8":
            return Int8Weight(entry.read(), self._scales(name + SCALE_SUFFIX))
        if entry.dtype == "U8":
            rows, columns = self.shapes[name]
            return Nf4Weight((rows, columns), entry.read(), self._scales(name + ABSMAX_SUFFIX))
        return None

    def chunks(self, name: str, scratch: Scratch) -> Iterator[Tensor]:
        """The rows of a matrix that is stored in floats, in fp32, as `weight.Chunks`; a vector comes as one column.

        Raises BaseFormatError where the bytes cannot be read, or hold NaN or infinity.
        """
        entry = self.entries[name]
        columns = prod(entry.shape[1:])
        for rows in row_chunks(entry.shape[0], columns):
            shape = rows.stop - rows.start, columns
            stored = scratch.take(shape, DTYPES[entry.dtype], CPU)
            entry.fill(stored, rows.start * columns)
            yield stored if stored.dtype == torch.float32 else scratch.take(shape, torch.float32, CPU).copy_(stored)

    def floats(self, name: str, dtype: torch.dtype) -> Tensor:
        """A whole tensor in `dtype` (fp32 or bf16), dequantised if need be. Raises as `packed` and `chunks` do."""
        packed = self.packed(name)
        if packed is not None:
            return packed.dense(dtype)
        shape = self.shapes[name]
        return dense_of_chunks((shape[0], prod(shape[1:])), self.chunks(name, Scratch()), dtype).values.view(shape)

    def _scales(self, name: str) -> Tensor:
        return self.entries[name].read().float()


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a base folder. Raises BaseFormatError that names missing, extra or misshapen tensors."""
    try:
        config_json = read_config_json(folder)
        config = parse_t5_config(folder, config_json)
    except BaseFilesError as error:
        raise BaseFormatError(str(error)) from error
    storage = config_json.get(STORAGE_KEY)
    if not (storage is None or (isinstance(storage, str) and storage in STORED_FORMATS)):
        raise BaseFormatError(f"{folder} is stored as {storage!r}, which this version does not know; update braid")
    entries = _named_once(folder, _shard_paths(folder))
    _check_entries(folder, config, storage, entries)
    shapes = {name: shape for name, shape in tensor_shapes(config).items() if name in entries}
    return Checkpoint(config, config_json, shapes, entries)


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
        for entry in read_entries(path):
            if entry.name in entries:
                first = entries[entry.name].path.name
                raise BaseFormatError(f"{folder} holds {entry.name} twice, in {first} and {path.name}")
            entries[entry.name] = entry
    if "shared.weight" not in entries and _DUPLICATES[0] in entries:
        raise BaseFormatError(
            f"{folder} holds {_DUPLICATES[0]} but not shared.weight; save it again with transformers' save_pretrained"
        )
    return entries


def _check_entries(folder: Path, config: T5Config, storage: str | None, entries: Mapping[str, Entry]) -> None:
    shapes = tensor_shapes(config)
    optional = dict.fromkeys(_DUPLICATES, shapes["shared.weight"])
    optional[_IGNORED] = shapes["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    if config.may_tie:
        optional[HEAD] = shapes.pop(HEAD)
    needed = _as_stored(shapes, entries, storage)
    allowed = needed | _as_stored(optional, entries, storage)
    _name(folder, "lacks", sorted(needed.keys() - entries.keys()))
    _name(folder, "has unknown", sorted(entries.keys() - allowed.keys()))
    for name, entry in entries.items():
        shape, dtypes = allowed[name]
        if entry.dtype not in dtypes:
            needed_dtypes = "a float type" if len(dtypes) > 1 else dtypes[0]
            raise BaseFormatError(f"{folder}: {name} is stored as {entry.dtype}, {needed_dtypes} is needed")
        if entry.shape != shape:
            raise BaseFormatError(f"{folder}: {name} has shape {list(entry.shape)}, config.json says {list(shape)}")


_Stored = dict[str, tuple[tuple[int, ...], tuple[str, ...]]]
"""Shape in the file and possible dtypes, by name."""


def _as_stored(shapes: Mapping[str, tuple[int, ...]], entries: Mapping[str, Entry], storage: str | None) -> _Stored:
    """Tensors that the files must hold for parameters of these shapes; `entries` tell which of them are in codes."""
    stored: _Stored = {}
    for name, shape in shapes.items():
        dtype = entries[name].dtype if name in entries else ""
        if dtype == "I8" and storage is not None and len(shape) == 2:
            stored |= {name: (shape, ("I8",)), name + SCALE_SUFFIX: (shape[:1], ("F32",))}
        elif dtype == "U8" and storage == BLOCKS_STORAGE and is_matrix(name):
            n_codes, n_blocks = packed_sizes(prod(shape))
            stored |= {name: ((n_codes,), ("U8",)), name + ABSMAX_SUFFIX: ((n_blocks,), ("F32",))}
        else:
            stored[name] = shape, tuple(_FLOATS)
    return stored


def _name(folder: Path, verb: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        raise BaseFormatError(
            f"{folder} {verb} tensor {', '.join(names[:MAX_NAMED])}{more}; its files and config.json do not belong "
            "together, or it is no T5 with a gated feed-forward"
        )
