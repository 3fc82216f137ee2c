"""Finding the run's base: the one named with --model, else one that is here already, else the server's files."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from braid_common.atomic_file import make_folder
from braid_common.base.files import is_base_file, read_t5_config
from braid_common.base.t5_config import T5Config
from braid_common.units import show_size
from edge_client.agent.console import Console
from edge_client.agent.downloads.hub import fetch_apart
from edge_client.base.locate import find_here, open_base, pinned_id
from edge_client.errors import BaseModelError, base_errors, disk_errors
from edge_client.network.api import Api
from edge_client.network.errors import RequestError
from wire.manifest import t5_weights
from wire.messages import BaseFile
from wire.run import RunInfo


async def find_base(model: str, run: RunInfo, api: Api, cache: Path, console: Console) -> Path:
    """The folder of the run's base, its digest checked. `model` "" leaves the choice to us; `cache` keeps downloads.

    The hub is asked where --model names a model there, and no sooner: a board without it takes the server's files.
    Raises BaseModelError where --model is not the run's base, or where neither board nor server has it whole.
    """
    if model:
        hub_id = pinned_id(model, run.base)
        folder = model if hub_id is None else str(await fetch_apart(hub_id, console))
        return await asyncio.to_thread(open_base, folder, run.base.digest)
    try:
        return await asyncio.to_thread(open_base, str(find_here(run.base)), run.base.digest)
    except BaseModelError as error:
        console.notice(f"{error.message}; taking it from the server")
    return await _fetch(run, api, cache / run.base.digest, console)


async def _fetch(run: RunInfo, api: Api, folder: Path, console: Console) -> Path:
    """The folder with the server's files. Files that an earlier start has left are used where they are sound."""
    if any(folder.glob("[!.]*")):  # noqa: ASYNC240 - one folder
        try:
            return await _fetch_missing(run, api, folder)
        except BaseModelError as error:
            if folder.exists():  # noqa: ASYNC240 - not what was here was wrong
                raise
            console.notice(f"{error.message}; what was kept of it is fetched again")
    return await _fetch_missing(run, api, folder)


async def _fetch_missing(run: RunInfo, api: Api, folder: Path) -> Path:
    """Fetch what the folder lacks. Raises BaseModelError, and removes the folder where its content is the reason."""
    with disk_errors(folder):
        make_folder(folder)
    try:
        listed = (await api.base_files()).files
        missing = [file for file in listed if not (folder / file.name).exists()]
        _check(missing, folder)
        for file in missing:
            await api.base_file(file, folder / file.name)
    except RequestError as error:
        raise BaseModelError(
            f"the server does not give the base's files: {error.message}",
            f"copy the folder of {run.base.model} to this board and name it with --model",
        ) from error
    try:
        return await asyncio.to_thread(open_base, str(folder), run.base.digest)
    except BaseModelError:
        shutil.rmtree(folder, ignore_errors=True)  # else every start would meet the same files
        raise


def _check(files: Sequence[BaseFile], folder: Path) -> None:
    """Raise BaseModelError for files that no base has, or that the disk cannot hold."""
    for file in files:
        if not is_base_file(file.name):
            raise BaseModelError(f"the server lists {file.name}, which is no part of a base", "name one with --model")
    need_bytes = sum(file.size_bytes for file in files)
    with disk_errors(folder):
        free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        raise BaseModelError(
            f"the base takes {show_size(need_bytes)}, but {folder} has {show_size(free_bytes)} free",
            "free some space, or name a folder that has the base with --model",
        )


def read_config(folder: Path, run: RunInfo) -> T5Config:
    """The numbers of the base. Raises BaseModelError where the run trains a weight that this base has not."""
    with base_errors("give a folder with a FLAN-T5 with --model"):
        config = read_t5_config(folder)
        known = set(t5_weights(config, "all"))
    for weight in run.weights:
        if weight not in known:
            raise BaseModelError(
                f"the run trains {weight.name} ({weight.rows}×{weight.columns}), which this base does not have",
                "update the older of client and server",
            )
    return config
