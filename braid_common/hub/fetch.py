"""Fetching a base: which files, in which order, and what is checked before gigabytes move.

Small files come first. So what is no FLAN-T5, has no safetensors or no tokenizer.json, or does not fit on the disk is
refused before its weights are asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from braid_common.base.files import (
    CONFIG_FILE,
    INDEX_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_SUFFIX,
    BaseFilesError,
    read_t5_config,
    shard_names,
)
from braid_common.hub.cache import whole_snapshot
from braid_common.hub.errors import HubDiskError, HubError, HubUnreachableError
from braid_common.hub.library import (
    HubFile,
    cache_root,
    cached_commit,
    endpoint,
    list_files,
    place_file,
    prepare,
    repo_folder,
)
from braid_common.hub.model_id import HubId
from braid_common.hub.progress import Progress
from braid_common.hub.transfer import fetch_large, size_here
from braid_common.units import show_size


@dataclass(frozen=True, slots=True)
class Fetched:
    """A base from the hub: its files in the cache, and its name pinned to a commit."""

    folder: Path
    model: HubId


def fetch(model: HubId, progress: Progress) -> Fetched:
    """Get a base into the hub's cache: config.json, tokenizer.json and its safetensors, and no other file.

    Takes what is cached where the revision is a commit, and where the hub cannot be reached. Raises HubError,
    HubUnreachableError and HubDiskError, each with what to do.
    """
    if folder := whole_snapshot(model):
        return Fetched(folder, model)
    prepare()
    try:
        listing = list_files(model)
    except HubUnreachableError as error:
        return _cached_instead(model, error, progress)
    pinned = model.at(listing.commit)
    folder = whole_snapshot(pinned) or _fetch_all(pinned, listing.files, progress)
    if not model.is_pinned:
        with suppress(HubUnreachableError):  # what the name means is for offline use alone
            place_file(model, CONFIG_FILE)
    return Fetched(folder, pinned)


def fetch_config(model: HubId) -> Path:
    """The folder in the hub's cache that holds the model's config.json; its weights may be missing. Raises HubError."""
    if folder := whole_snapshot(model):
        return folder
    prepare()
    return place_file(model, CONFIG_FILE).parent


def _cached_instead(model: HubId, error: HubUnreachableError, progress: Progress) -> Fetched:
    commit = cached_commit(model)
    folder = whole_snapshot(model.at(commit)) if commit else None
    if commit is None or folder is None:
        raise error
    pinned = model.at(commit)
    progress.say(f"the hub gave no answer ({error.reason}); taking {pinned.shown} from its cache")
    return Fetched(folder, pinned)


def _fetch_all(model: HubId, files: Mapping[str, HubFile], progress: Progress) -> Path:
    """Fetch what is missing of a pinned model. The folder of its snapshot."""
    _require_base_files(model, files)
    folder = place_file(model, CONFIG_FILE).parent
    place_file(model, TOKENIZER_FILE)
    if WEIGHTS_FILE not in files:
        place_file(model, INDEX_FILE)
    try:
        read_t5_config(folder)
        names = (WEIGHTS_FILE,) if WEIGHTS_FILE in files else shard_names(folder)
    except BaseFilesError as error:
        raise HubError(f"{model.shown}: {error}", "give a FLAN-T5, such as google/flan-t5-small") from error
    if lost := [name for name in names if name not in files]:
        raise HubError(f"{model.shown} has no {lost[0]}, which its index names", "give another revision or model")
    _fetch_weights(model, [files[name] for name in names if not (folder / name).is_file()], progress)
    return folder


def _require_base_files(model: HubId, files: Mapping[str, HubFile]) -> None:
    """Raise HubError where the model lacks a file without which it can be no base."""
    if CONFIG_FILE not in files:
        raise HubError(f"{model.shown} has no {CONFIG_FILE}: it is no model of transformers", "give a FLAN-T5")
    by_hand = f"fetch it with `hf download {model.repo} --local-dir DIR`, make that file there, and give DIR"
    if WEIGHTS_FILE not in files and INDEX_FILE not in files:
        other = [name for name in files if name.endswith((WEIGHTS_SUFFIX, ".bin"))]
        raise HubError(f"{model.shown} has no {WEIGHTS_FILE}" + (f", only {other[0]}" if other else ""), by_hand)
    if TOKENIZER_FILE not in files:
        raise HubError(f"{model.shown} has no {TOKENIZER_FILE}, which boards read text with", by_hand)


def _fetch_weights(model: HubId, files: Sequence[HubFile], progress: Progress) -> None:
    """Fetch the files of weights, after a word on their size and a look at the disk."""
    root = cache_root()
    assert root is not None  # the library is loaded
    blobs = repo_folder(root, model.repo) / "blobs"
    here = {file.name: size_here(blobs / file.digest) if file.digest else 0 for file in files}
    total_bytes, here_bytes = sum(file.size_bytes for file in files), sum(here.values())
    if here_bytes < total_bytes:
        _require_space(model, total_bytes - here_bytes, root)
        begun = f" ({show_size(here_bytes)} are here already)" if here_bytes else ""
        many = "1 file" if len(files) == 1 else f"{len(files)} files"
        progress.say(
            f"fetching {model.shown} from {endpoint()}: {many} of weights, {show_size(total_bytes)}{begun}, into {root}"
        )
    for file in files:
        if file.digest:

            def moved(size_bytes: int, name: str = file.name) -> None:
                here[name] = size_bytes
                progress.moved(sum(here.values()), total_bytes)

            fetch_large(model, file, blobs / file.digest, progress, moved)
        place_file(model, file.name)


def _require_space(model: HubId, need_bytes: int, root: Path) -> None:
    """Raise HubDiskError where the cache's disk has less free than `need_bytes`."""
    place = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    free_bytes = shutil.disk_usage(place).free
    if need_bytes > free_bytes:
        raise HubDiskError(
            f"{model.shown} takes {show_size(need_bytes)}, but the disk of {root} has {show_size(free_bytes)} free",
            "free some space, or set HF_HOME to a folder of yours on another disk",
        )
