"""One tensor in a safetensors file: where it lies, and its values, a few at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from quantize.errors import BaseFormatError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
"""torch's dtype by safetensors' name, of all that a base may hold."""

LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header, little-endian."""


@dataclass(frozen=True)
class Entry:
    """A tensor's place in a file: its bytes begin at `offset_bytes`. `dtype` is safetensors' name for its type."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    def read(self) -> Tensor:
        """The whole tensor, as it is stored. Raises as `fill`."""
        values = torch.empty(self.shape, dtype=DTYPES[self.dtype])
        self.fill(values)
        return values

    def fill(self, values: Tensor, first: int = 0) -> None:
        """Read the stored values from number `first` (row-major) on into the caller's `values`, of the stored dtype.

        They are read, not mapped: every page of a mapping that was touched counts as resident for as long as the
        mapping lives, and loading would end with the whole checkpoint in memory.
        Raises BaseFormatError where the file ends early or cannot be read, and for NaN or infinity.
        """
        space = values.view(-1).view(torch.uint8).numpy().data
        with _readable(self.path), self.path.open("rb", buffering=0) as file:
            file.seek(self.offset_bytes + first * values.itemsize)
            while len(space):
                n_read = file.readinto(space)
                if not n_read:
                    raise ValueError("it ends early")
                space = space[n_read:]
        if values.is_floating_point():
            _check_finite(self, values)


def read_entries(path: Path) -> Iterator[Entry]:
    """Every tensor of one file. Raises BaseFormatError where it is missing, truncated or damaged.

    safetensors' own reader checks that the tensors fill the file without gaps or overlaps, but does not say where they
    lie, so the header is read a second time.
    """
    with _readable(path), safe_open(path, framework="pt"), path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(LENGTH_BYTES), "little")
        header = json.loads(file.read(header_bytes))
    header.pop("__metadata__", None)
    for name, place in header.items():
        start = LENGTH_BYTES + header_bytes + place["data_offsets"][0]
        yield Entry(name, path, place["dtype"], tuple(place["shape"]), start)


def _check_finite(entry: Entry, values: Tensor) -> None:
    low, high = torch.aminmax(values)  # NaN wins both; no temporary as isfinite would need
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise BaseFormatError(f"{entry.path}: {entry.name} holds NaN or infinity; copy or download the base again")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Map what safetensors and the file system raise for a bad file."""
    try:
        yield
    except FileNotFoundError as error:
        raise BaseFormatError(f"{path} is missing; copy or download the base again") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise BaseFormatError(f"{path} is damaged or truncated ({error}); copy or download the base again") from error
