"""Files of fp32 matrices and numbers that are whole or not there, and that belong to one piece of work.

What a file belongs to is said by a key: with another key it counts as absent. So does one with a flipped bit, which a
worn card may give back without a word: safetensors has no checksum, and a wrong value would be trained on and sent.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from braid_common.atomic_file import write_atomically
from edge_client.errors import disk_errors
from quantize.writer import Place as StoredTensor
from quantize.writer import header


@dataclass(frozen=True, slots=True)
class SavedTensors:
    """A file on disk: its numbers, and the shapes of its fp32 matrices by name."""

    path: Path
    numbers: Mapping[str, float]
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor:
        """One matrix, a view of the file. All at once would be a second copy of everything that is trained."""
        with safe_open(self.path, framework="pt") as file:
            values: Tensor = file.get_tensor(name)
            return values

    def read_all(self) -> dict[str, Tensor]:
        """Every matrix, views of the file, which is opened once."""
        with safe_open(self.path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in self.shapes}


def save_tensors(path: Path, key: str, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> int:
    """Write fp32 matrices and numbers atomically, one matrix at a time; the file's size in bytes.

    safetensors' own `save` holds two copies of all of them, which made it the peak of a round with short texts. Raises
    DiskError where the disk is full or not ours.
    """
    metadata = {"key": key, "numbers": json.dumps(dict(numbers)), "crc32": ""}
    metadata["crc32"] = _checksum(metadata, tensors.items())
    entries = [StoredTensor(name, "F32", tuple(tensor.shape)) for name, tensor in tensors.items()]
    start = header(entries, metadata)
    with disk_errors(path):
        write_atomically(path, chain([start], map(_bytes, tensors.values())))
    return len(start) + sum(entry.size_bytes for entry in entries)


def load_tensors(path: Path, key: str) -> SavedTensors | None:
    """The file at `path`, or None where there is none, or it is damaged or has another key."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            if metadata.get("crc32") != _checksum(metadata, ((name, file.get_tensor(name)) for name in names)):
                return None
            return SavedTensors(path, json.loads(metadata["numbers"]), shapes)
    except (OSError, SafetensorError, ValueError, KeyError):
        return None


def _checksum(metadata: Mapping[str, str], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A CRC-32 over numbers, names, shapes and values, in whatever order; one matrix is in memory at a time."""
    checksum = zlib.crc32(metadata["numbers"].encode())
    for name, tensor in tensors:
        of_one = zlib.crc32(f"{name} {tuple(tensor.shape)}".encode())
        checksum ^= zlib.crc32(_bytes(tensor), of_one)
    return f"{checksum:08x}"


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().numpy().tobytes()
