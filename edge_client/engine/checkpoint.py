"""The place of a training job on disk, so that a board that lost its power goes on with the next optimiser step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edge_client.examples import Example
from edge_client.jobs import Job
from edge_client.state import disk_errors
from wire.atomic_file import write_atomically

MIN_INTERVAL_S = 5.0
"""Work that a power cut may cost, where checkpoints are small."""

MAX_BYTES_PER_S = 500_000
"""Writing on average, so that large checkpoints do not wear out an SD card: 20 MB are written every 40 s."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a job needs to go on: fp32 tensors by name, and numbers."""

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, float]


def checkpoint_key(job: Job, examples: Sequence[Example]) -> str:
    """Digest of all that decides the course of a round: run, task, plan, and the text itself."""
    run = msgspec.structs.replace(job.run, state="training", round=0, version=0, values=())  # these change meanwhile
    task = msgspec.structs.replace(job.task, time_left_s=None, retry_after_s=0.0)
    digest = hashlib.sha256(msgspec.msgpack.encode((run, task, job.plan, job.device)))
    for example in examples:
        digest.update(f"{len(example.source)} {len(example.target)} {example.source}{example.target}".encode())
    return digest.hexdigest()


def save_place(path: Path, key: str, place: Place) -> int:
    """Write a checkpoint atomically; its size in bytes. Raises DiskError where the disk is full or not ours."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in place.tensors.items()}
    data = save(tensors, metadata={"key": key, "numbers": json.dumps(dict(place.numbers))})
    with disk_errors(path):
        write_atomically(path, data)
    return len(data)


def load_place(path: Path, key: str) -> Place | None:
    """The checkpoint at `path`, or None where there is none, or it is damaged or belongs to other work."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
            return Place(tensors, json.loads(metadata["numbers"]))
    except (OSError, SafetensorError, ValueError, KeyError):
        return None


def interval_s(size_bytes: int) -> float:
    """Seconds from one checkpoint of this size to the next."""
    return max(MIN_INTERVAL_S, size_bytes / MAX_BYTES_PER_S)


def copy_into(target: Tensor, saved: Tensor) -> None:
    """Put a saved value where training expects it. Raises ValueError where the shapes differ."""
    if target.shape != saved.shape:
        raise ValueError(f"checkpoint holds {list(saved.shape)}, {list(target.shape)} is needed")
    with torch.no_grad():
        target.copy_(saved)
