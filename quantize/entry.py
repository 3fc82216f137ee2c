"""One tensor in a safetensors file: its values, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from braid_common.base.safetensors_header import StoredTensor
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


@dataclass(frozen=True)
class Entry(StoredTensor):
    """A tensor's place in a file, and its values. `dtype` is one of DTYPES."""

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


def _check_finite(entry: Entry, values: Tensor) -> None:
    low, high = torch.aminmax(values)  # NaN wins both; no temporary as isfinite would need
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise BaseFormatError(f"{entry.path}: {entry.name} holds NaN or infinity; copy or download the base again")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Map what the file system raises for a bad file."""
    try:
        yield
    except FileNotFoundError as error:
        raise BaseFormatError(f"{path} is missing; copy or download the base again") from error
    except (OSError, ValueError) as error:
        raise BaseFormatError(f"{path} is damaged or truncated ({error}); copy or download the base again") from error
