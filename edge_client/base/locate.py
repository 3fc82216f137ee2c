"""Finding the base model's files: `--model` is `builtin`, a folder, or a name on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import builtin_base
from braid_common.base.check import check_base
from braid_common.base.files import WEIGHTS_SUFFIX, base_digest
from braid_common.base.safetensors_header import require_whole as read_headers
from braid_common.hub.cache import whole_snapshot
from braid_common.hub.errors import HubDiskError, HubError
from braid_common.hub.fetch import fetch, fetch_config
from braid_common.hub.model_id import HubId, parse_hub_id
from braid_common.hub.progress import Progress, StreamProgress
from edge_client.errors import BaseModelError, DiskError, base_errors
from wire.run import Base

BUILTIN = "builtin"

SHOWN_DIGITS = 12
"""Hex digits of a digest that are shown to people: 48 bits, and it fits a line twice."""

_FOLDER_HINT = (
    "pass a folder that holds the model, or a hub id such as google/flan-t5-small, with --model, or let the aggregator "
    "serve the files to its boards"
)


def resolve(model: str, progress: Progress | None = None) -> Path:
    """The folder of `--model`: "builtin", a folder's path, or a hub id such as google/flan-t5-small, or with @REVISION.

    A hub id is fetched into the hub's cache; `progress` hears how far that is, standard error unless it is given.
    Raises BaseModelError, or DiskError where the cache cannot be written.
    """
    found = _local(model)
    if isinstance(found, Path):
        return found
    with hub_failures(model):
        return fetch(found, progress or StreamProgress()).folder


def resolve_config(model: str) -> Path:
    """A folder as `resolve` finds it, of which only config.json is needed: of a hub id no more than that is fetched."""
    found = _local(model)
    if isinstance(found, Path):
        return found
    with hub_failures(model):
        return fetch_config(found)


def find_here(base: Base) -> Path:
    """The folder of a run's base on this board, in the hub's cache or where its name leads; nothing is fetched.

    Raises BaseModelError where it is not here.
    """
    if base.revision:
        model = parse_hub_id(base.model)
        folder = whole_snapshot(model.at(base.revision)) if model else None
        if folder is None:
            raise BaseModelError(f"{base.model} is not on this board", _FOLDER_HINT)
        return folder
    found = _local(base.model)
    if isinstance(found, HubId):
        raise BaseModelError(f"{base.model} is no folder here", _FOLDER_HINT)
    return found


def pinned_id(model: str, base: Base) -> HubId | None:
    """The hub id that `--model` names, at the run's own commit where it names the run's base and no other revision.

    None where it names something on this board.
    """
    found = _local(model)
    if isinstance(found, Path):
        return None
    return found.at(base.revision) if found == HubId(base.model) and base.revision else found


def open_base(model: str, expected_digest: str) -> Path:
    """The folder of `model`, after a check that its files are the run's (`braid_common.base.files.base_digest`).

    Reads every byte once. Raises BaseModelError that shows the start of both digests where they differ.
    """
    folder = resolve(model)
    with base_errors(_FOLDER_HINT):
        digest = base_digest(folder)
    if digest != expected_digest:
        with base_errors(_FOLDER_HINT):
            check_base(folder)  # what is wrong with the folder itself says more than two digests
        ours, theirs = digest[:SHOWN_DIGITS], expected_digest[:SHOWN_DIGITS]
        raise BaseModelError(
            f"the base in {folder} is not the run's: its digest is {ours}…, the run's {theirs}…",
            "give the model that the run was made for with --model, or copy its folder from the server again",
        )
    return folder


def require_whole(folder: Path) -> None:
    """Raise BaseModelError where a weights file is not as long as its own header says, or no safetensors at all. No
    tensor is read, and a folder may have none."""
    with base_errors("copy or download the base again"):
        read_headers(sorted(folder.glob(f"*{WEIGHTS_SUFFIX}")))


def _builtin() -> Path:
    folder = builtin_base.folder()
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"the builtin base is missing from {folder}", "install Braid again, or " + _FOLDER_HINT)
    return folder


def _local(model: str) -> Path | HubId:
    """The folder on this board that `--model` names, else the hub id. Raises BaseModelError where it is neither."""
    if model == BUILTIN:
        return _builtin()
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    hub_id = None if path.exists() else parse_hub_id(model)
    if hub_id is None:
        raise BaseModelError(f"{model} is no folder", _FOLDER_HINT)
    return hub_id


@contextmanager
def hub_failures(model: str) -> Iterator[None]:
    """Raise what the hub does not give as BaseModelError, and a cache that cannot be written as DiskError."""
    try:
        yield
    except HubDiskError as error:
        raise DiskError(error.message, error.hint) from error
    except HubError as error:
        raise BaseModelError(f"{model} is no folder here, and {error.message}", error.hint) from error
