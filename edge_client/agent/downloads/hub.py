"""Fetching a base from the hub in a process of its own, so that the client which then waits for weeks stays small."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from braid_common.hub.cache import whole_snapshot
from braid_common.hub.model_id import HubId
from edge_client.agent.console import Console
from edge_client.errors import BaseModelError, DiskError

_MIB = 1 << 20


class _Line(msgspec.Struct, frozen=True):
    """A line of `python -m braid_common.hub`; what it does not say is empty."""

    say: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    folder: str = ""
    message: str = ""
    hint: str = ""
    is_disk: bool = False


async def fetch_apart(model: HubId, console: Console) -> Path:
    """The folder of a model in the hub's cache, fetched where it is not there yet. Cancelled, it ends the process.

    Raises BaseModelError where the hub does not give it, DiskError where the cache cannot be written.
    """
    if folder := whole_snapshot(model):
        return folder
    name = f"{model.repo}@{model.revision}" if model.revision else model.repo
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "braid_common.hub", name, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    last = _Line()
    try:
        async for text in process.stdout:
            last = msgspec.json.decode(text, type=_Line)
            if last.say:
                console.notice(last.say)
            elif last.total_bytes:
                steps = -(-last.total_bytes // _MIB)
                step = steps if last.done_bytes == last.total_bytes else last.done_bytes // _MIB
                console.progress(phase="base", step=step, steps=steps, unit="MiB")
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if last.folder:
        return Path(last.folder)
    if last.is_disk:
        raise DiskError(last.message, last.hint)
    message = last.message or f"fetching {model.shown} ended with status {status}"
    raise BaseModelError(message, f"{last.hint or 'try again'}; or leave --model out: the server has the files")
