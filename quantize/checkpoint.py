"""A base's safetensors on disk, checked against the layout before a tensor is read, then read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from braid_common.base.files import BaseFilesError, parse_t5_config, read_config_json
from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import HEAD, tensor_shapes
from braid_common.base.weights import ABSMAX_SUFFIX, FLOATS, SCALE_SUFFIX, STORAGE_KEY, STORED_FORMATS, read_weights
from quantize.entry import DTYPES, Entry
from quantize.errors import BaseFormatError
from quantize.int8 import Int8Weight
from quantize.nf4 import Nf4Weight
from quantize.weight import CPU, Scratch, dense_of_chunks, row_chunks


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
        packed = STORED_FORMATS.get(self.config_json.get(STORAGE_KEY, ""))
        return packed or FLOATS[self.entries["shared.weight"].dtype]

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
        stored = read_weights(folder, config, config_json)
    except BaseFilesError as error:
        raise BaseFormatError(str(error)) from error
    entries = {name: Entry(t.name, t.path, t.dtype, t.shape, t.offset_bytes) for name, t in stored.items()}
    shapes = {name: shape for name, shape in tensor_shapes(config).items() if name in entries}
    return Checkpoint(config, config_json, shapes, entries)
