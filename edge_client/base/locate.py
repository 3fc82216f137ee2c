"""Finding the base model's files: `--model` is `builtin`, a folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import builtin_base
from braid_common.base_check import check_base
from braid_common.base_files import WEIGHTS_SUFFIX, base_digest
from braid_common.safetensors_header import require_whole as read_headers
from edge_client.errors import BaseModelError, base_errors

BUILTIN = "builtin"

SHOWN_DIGITS = 12
"""Hex digits of a digest that are shown to people: 48 bits, and it fits a line twice."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HUB_FILES = ("config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json")
_FOLDER_HINT = "pass a folder that holds the model with --model, or let the aggregator serve the files to its boards"


def resolve(model: str) -> Path:
    """The folder of `--model`: "builtin", a folder's path, or a hub id such as google/flan-t5-small.

    A hub id is downloaded (and cached) by huggingface_hub, where that is installed and the hub can be reached.
    Raises BaseModelError that says what to do instead.
    """
    if model == BUILTIN:
        return _builtin()
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists() or not _HUB_ID.fullmatch(model):
        raise BaseModelError(f"{model} is no folder", _FOLDER_HINT)
    return _from_hub(model)


def open_base(model: str, expected_digest: str) -> Path:
    """The folder of `model`, after a check that its files are the run's (`braid_common.base_files.base_digest`).

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


def _from_hub(model: str) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise BaseModelError(
            f"{model} is no folder here, and huggingface_hub is not installed to fetch it from the hub",
            _FOLDER_HINT,
        ) from error
    # All of the hub's own errors are OSErrors or ValueErrors.
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *_http_errors())
    try:
        return Path(hub.snapshot_download(model, allow_patterns=list(_HUB_FILES)))
    except failures as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BaseModelError(
            f"{model} is no folder here and the hub did not give it ({reason})", _FOLDER_HINT
        ) from error


def _http_errors() -> tuple[type[Exception], ...]:
    """Transport errors of the library that huggingface_hub uses: httpx since 1.0, requests (an OSError) before."""
    try:
        error: type[Exception] = importlib.import_module("httpx").HTTPError
    except ImportError:
        return ()
    return (error,)
