"""Weights that are brought back from a GPU: 8 bits a value, in files small enough to travel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

MAX_PART_BYTES = 15 << 20
"""Tensors in one file; a lent machine gives back files of at most 16 MiB."""


def write_parts(
    folder: Path, name: str, packed: Mapping[str, torch.Tensor], sizes: Mapping[str, int], step: int
) -> list[Path]:
    """Write packed weights as ``NAME.1.safetensors`` and so on.

    Args:
        folder: where.
        name: of the model.
        packed: of `packing.pack_weights`.
        sizes: of its architecture.
        step: at which they were taken; parts of different steps do not join.

    Returns:
        The files.
    """
    groups: list[dict[str, torch.Tensor]] = [{}]
    room = MAX_PART_BYTES
    for key, value in packed.items():
        room -= value.nbytes
        if room < 0 and groups[-1]:
            groups.append({})
            room = MAX_PART_BYTES - value.nbytes
        groups[-1][key] = value
    metadata = {"sizes": json.dumps(dict(sizes)), "step": str(step), "n_parts": str(len(groups))}
    paths = [folder / f"{name}.{number}.safetensors" for number in range(1, len(groups) + 1)]
    fresh = [path.with_suffix(".new") for path in paths]
    for path, group in zip(fresh, groups, strict=True):
        save_file(group, path, metadata=metadata)
    for new, path in zip(fresh, paths, strict=True):
        new.replace(path)
    return paths


def read_parts(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Read what `write_parts` wrote: (packed weights, sizes of the architecture).

    Raises:
        FileNotFoundError: where there is none of that name.
        ValueError: if a part is missing, or parts were taken at different steps.
    """
    packed: dict[str, torch.Tensor] = {}
    seen: list[dict[str, str]] = []
    paths = sorted(folder.glob(f"{name}.*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no {name}.1.safetensors: give the folder that was brought back")
    for path in paths:
        with safe_open(path, framework="pt") as file:
            seen.append(file.metadata())
            packed |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- not a mapping
    if any(metadata != seen[0] for metadata in seen) or len(seen) != int(seen[0]["n_parts"]):
        raise ValueError(f"{folder}: the parts of {name} are not of one export: bring all of one run back")
    sizes: dict[str, int] = json.loads(seen[0]["sizes"])
    return packed, sizes
