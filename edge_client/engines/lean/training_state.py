"""The place of a training job on disk, so that a board that lost its power goes on with the next optimiser step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from braid_common.atomic_file import write_atomically
from braid_common.example import Example
from edge_client.jobs.messages import Job
from edge_client.state.folder import disk_errors
from quantize.writer import Place as StoredTensor
from quantize.writer import header

MIN_INTERVAL_S = 5.0
"""Work that a power cut may cost, where checkpoints are small."""

MAX_BYTES_PER_S = 500_000
"""Writing on average, so that large checkpoints do not wear out an SD card: 20 MB are written every 40 s."""


FORMAT = 2
"""Of a place's numbers and matrices. A place of another one is not taken up: its round begins again.

2: sketched tokens by turn."""


@dataclass(frozen=True, slots=True)
class SavedPlace:
    """A checkpoint on disk: its numbers, and the shapes of its fp32 matrices by name."""

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


def checkpoint_key(job: Job, examples: Sequence[Example]) -> str:
    """Digest of what a round's values belong to: run, round, device, and the text itself.

    The plan is no part of it: when memory runs short, a round goes on in a leaner way from where it was, if need be
    with fewer strands (`restore`).
    """
    run = msgspec.structs.replace(job.run, state="training", round=0, version=0, values=())  # these change meanwhile
    digest = hashlib.sha256(msgspec.msgpack.encode((FORMAT, run, job.spec, job.device)))
    for example in examples:
        digest.update(f"{len(example.source)} {len(example.target)} {example.source}{example.target}".encode())
    return digest.hexdigest()


def save_place(path: Path, key: str, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> int:
    """Write a checkpoint of fp32 matrices and numbers atomically, one matrix at a time; its size in bytes.

    safetensors' own `save` holds two copies of all of them, which made it the peak of a round with short texts. Raises
    DiskError where the disk is full or not ours.
    """
    metadata = {"key": key, "numbers": json.dumps(dict(numbers))}
    places = [StoredTensor(name, "F32", tuple(tensor.shape)) for name, tensor in tensors.items()]
    start = header(places, metadata)
    with disk_errors(path):
        write_atomically(path, chain([start], map(_bytes, tensors.values())))
    return len(start) + sum(place.size_bytes for place in places)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().numpy().tobytes()


def load_place(path: Path, key: str) -> SavedPlace | None:
    """The checkpoint at `path`, or None where there is none, or it is damaged or belongs to other work."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return SavedPlace(path, json.loads(metadata["numbers"]), shapes)
    except (OSError, SafetensorError, ValueError, KeyError):
        return None


def interval_s(size_bytes: int) -> float:
    """Seconds from one checkpoint of this size to the next."""
    return max(MIN_INTERVAL_S, size_bytes / MAX_BYTES_PER_S)


def restore(place: SavedPlace, targets: Mapping[str, Tensor]) -> bool:
    """Put a place's values into `targets`, which are changed; False, with none changed, where the place lacks one.

    Of a larger saved matrix the leading block is taken: a weight's strands nest, so that the leading columns of B and
    rows of A are the place of a round with fewer.
    """
    for name, target in targets.items():
        rows, columns = place.shapes.get(name, (0, 0))
        if rows < target.shape[0] or columns < target.shape[1]:
            return False
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(place.read(name)[: target.shape[0], : target.shape[1]])
    return True
