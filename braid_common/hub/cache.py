"""The part of a model that is in the hub's cache already. Loads no more of huggingface_hub than where that cache is."""

from __future__ import annotations

from pathlib import Path

from braid_common.base.files import (
    CONFIG_FILE,
    INDEX_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    BaseFilesError,
    shard_names,
)
from braid_common.hub.library import cache_root, repo_folder
from braid_common.hub.model_id import HubId


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
        names = (CONFIG_FILE, TOKENIZER_FILE, *_weight_files(folder))
    except BaseFilesError:
        return False
    return all((folder / name).is_file() for name in names)


def _weight_files(folder: Path) -> tuple[str, ...]:
    """The names of a base's files of weights, in a folder that holds its index where there is one.

    Raises BaseFilesError where the index is damaged.
    """
    if (folder / WEIGHTS_FILE).is_file() or not (folder / INDEX_FILE).is_file():
        return (WEIGHTS_FILE,)
    return (INDEX_FILE, *shard_names(folder))
