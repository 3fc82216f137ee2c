"""The part of a model that is in the hub's cache already. Loads no more of huggingface_hub than where that cache is."""

from __future__ import annotations

import json
from pathlib import Path

from braid_common.base_files import CONFIG_FILE, TOKENIZER_FILE, BaseFilesError
from braid_common.hub.library import cache_root, repo_folder
from braid_common.hub.model_id import HubId

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

MAX_INDEX_BYTES = 16 << 20
"""Largest index that is read. FLAN-T5-xxl's has 60 kB."""


def snapshot_folder(model: HubId) -> Path | None:
    """The cache's folder of a pinned model, whether it is there or not; None where huggingface_hub is not installed."""
    root = cache_root()
    return root and repo_folder(root, model.repo) / "snapshots" / model.revision


def whole_snapshot(model: HubId) -> Path | None:
    """The cache's folder of a pinned model with all that a base needs; None where something is missing."""
    folder = snapshot_folder(model) if model.is_pinned else None
    return folder if folder and is_whole(folder) else None


def is_whole(folder: Path) -> bool:
    """Whether config, tokenizer and every file of weights are there. The cache holds whole files only."""
    try:
        names = (CONFIG_FILE, TOKENIZER_FILE, *weight_files(folder))
    except BaseFilesError:
        return False
    return all((folder / name).is_file() for name in names)


def weight_files(folder: Path) -> tuple[str, ...]:
    """The names of a base's files of weights, in a folder that holds its index where there is one.

    Raises BaseFilesError where the index is damaged.
    """
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file() or not index.is_file():
        return (SINGLE_FILE,)
    try:
        with index.open("rb") as file:
            names = set(json.loads(file.read(MAX_INDEX_BYTES))["weight_map"].values())
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError("it names no plain file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseFilesError(f"{index} is damaged ({error}): download the model again") from error
    return (INDEX_FILE, *sorted(names))
