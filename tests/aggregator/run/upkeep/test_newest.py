"""The newest version's file is looked at while the server runs, and written again from memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aggregator.run.upkeep import newest

SETTINGS = {"train.targets": ["q"], "merge.max_rank": 1, "rounds.min_devices": 1, "rounds.quorum": 1}


@pytest.fixture
async def begun(make_folder: Any, start: Any, begin_training: Any) -> Any:
    """A server with its first version."""
    server = await start(make_folder(SETTINGS))
    await begin_training([await server.board("ada")])
    return server


def harm(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut off":
        path.write_bytes(whole[:-1])
    else:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


@pytest.mark.parametrize("how", ["damaged", "missing", "cut off"])
async def test_a_damaged_newest_version_is_written_again(
    begun: Any, start: Any, stop: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Within the hour, and people are told: it was found by the next start alone, which had to go back a version."""
    run, path = begun.run, begun.opened.folder.blobs / begun.run.digest
    whole = path.read_bytes()
    harm(path, how)
    monkeypatch.setattr(newest, "LOOK_EVERY_S", 0.0)

    looking = asyncio.create_task(newest.look_after(run))
    while not run.losses:  # noqa: ASYNC110 - it looks at its own pace
        await asyncio.sleep(0.001)
    looking.cancel()

    assert path.read_bytes() == whole
    assert [word in run.warnings[0] for word in ("version 1", "written again")] == [True, True]
    aside = [file.name for file in begun.opened.folder.quarantine.glob("*")]
    assert aside == ([] if how == "missing" else [path.name])
    await stop(begun)
    again = await start(begun.opened.folder)
    assert again.run.state.version == 1 and not again.run.losses


async def test_a_sound_version_is_left_alone(begun: Any) -> None:
    path = begun.opened.folder.blobs / begun.run.digest
    before = path.stat()

    await newest.mend(begun.run)

    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns) and not begun.run.losses


async def test_a_disk_that_refuses_is_asked_again(begun: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be full when the file is to be written."""
    run, path = begun.run, begun.opened.folder.blobs / begun.run.digest
    harm(path, "missing")
    monkeypatch.setattr(newest, "LOOK_EVERY_S", 0.0)
    put, refused = run.storage.blobs.put, []

    def full(data: bytes) -> str:
        if len(refused) < 2:
            refused.append(len(data))
            raise OSError(28, "No space left on device")
        return put(data)

    monkeypatch.setattr(run.storage.blobs, "put", full)
    looking = asyncio.create_task(newest.look_after(run))
    while not run.losses:  # noqa: ASYNC110 - it looks at its own pace
        await asyncio.sleep(0.001)
    looking.cancel()

    assert len(refused) == 2 and path.exists()
