"""Files that boards download and that are damaged or gone: none is sent under a digest that it does not have."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aggregator.downloads.sound_files import MAX_KNOWN, SoundFiles
from aggregator.report.tables import status_text
from braid_common.base.files import file_digest
from wire.codec import decode
from wire.messages import Refusal


def harmed(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "cut off":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


HOW = ["damaged", "missing", "cut off"]


@pytest.fixture
async def trained(make_folder: Any, start: Any, begin_training: Any) -> Any:
    """A server with version 1 and a board, which has fetched its cut."""
    server = await start(make_folder())
    boards = [await server.board(name) for name in ("ada", "bo")]
    await begin_training(boards)
    return server, boards[0]


async def fetched(board: Any, path: str, start: int = 0) -> tuple[int, str, bytes]:
    headers = {**board.headers, **({"Range": f"bytes={start}-"} if start else {})}
    async with board.client.get(path, headers=headers) as response:
        return response.status, response.headers.get("ETag", "").strip('"'), await response.read()


def cut_path(board: Any) -> str:
    return "/v1/adapters/1?ranks=" + ".".join(["1"] * len(board.info.weights))


@pytest.mark.parametrize("how", HOW)
async def test_a_cut_is_made_again(trained: Any, how: str) -> None:
    """Whoever asks next gets the right bytes, in full or the rest of a broken download."""
    server, board = trained
    status, digest, whole = await fetched(board, cut_path(board))
    assert status == 200 and hashlib.sha256(whole).hexdigest() == digest

    for start in (0, 100):
        (path,) = server.opened.folder.cuts.iterdir()
        harmed(path, how)
        status, again, data = await fetched(board, cut_path(board), start)
        assert (status, again, data) == (206 if start else 200, digest, whole[start:])
        assert file_digest(path) == digest


async def test_a_cut_that_the_disk_reads_otherwise_is_broken_off(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing shows on the file, but other bytes come: they never make a whole answer, and the next one is right."""
    server, board = trained
    for _ in range(2):  # and read once, after it was made
        _, digest, whole = await fetched(board, cut_path(board))
    (path,) = server.opened.folder.cuts.iterdir()
    fired, opening = [], Path.open
    wrong = path.with_name("wrong")
    wrong.write_bytes(whole)
    harmed(wrong, "damaged")

    def open_(file: Path, *arguments: Any, **options: Any) -> Any:
        if file == path and not fired:
            fired.append(file)
            return opening(wrong, *arguments, **options)
        return opening(file, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_)
    with pytest.raises(aiohttp.ClientError):
        await fetched(board, cut_path(board))
    assert fired

    assert await fetched(board, cut_path(board)) == (200, digest, whole)


async def test_a_cut_that_cannot_be_read_is_made_again(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, board = trained
    _, digest, whole = await fetched(board, cut_path(board))
    (path,) = server.opened.folder.cuts.iterdir()
    harmed(path, "damaged")
    fired = []

    def refuse(file: Path) -> str:
        fired.append(file)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("aggregator.downloads.sound_files.file_digest", refuse)
    assert await fetched(board, cut_path(board)) == (200, digest, whole)
    assert fired == [path]


@pytest.mark.parametrize("how", HOW)
async def test_a_damaged_base_is_told_of_and_not_sent(make_folder: Any, start: Any, how: str) -> None:
    """503 until its file is put back, which needs no restart; people are told meanwhile."""
    server = await start(make_folder())
    board = await server.board("ada")
    status, digest, whole = await fetched(board, "/v1/base/model.safetensors")
    assert status == 200 and hashlib.sha256(whole).hexdigest() == digest
    path = server.opened.config.model.path / "model.safetensors"

    harmed(path, how)
    for _ in range(2):
        status, _, data = await fetched(board, "/v1/base/model.safetensors")
        refusal = decode(data, Refusal)
        assert (status, refusal.code) == (503, "busy") and "model.safetensors" in refusal.message
    facts = await server.status()
    words = f"{path} is damaged or missing"
    assert words in status_text(facts) and sum(words in event for event in facts["events"]) == 1

    path.write_bytes(whole)
    assert await fetched(board, "/v1/base/model.safetensors") == (200, digest, whole)
    assert not (await server.status())["run"]["warnings"]


class TestSoundFiles:
    async def test_a_file_is_read_once_until_it_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many ask at once."""
        path, sound = tmp_path / "file", SoundFiles()
        path.write_bytes(b"right")
        digest, read = file_digest(path), []
        monkeypatch.setattr(
            "aggregator.downloads.sound_files.file_digest", lambda file: (read.append(file), file_digest(file))[1]
        )

        assert all(await asyncio.gather(*(sound.is_sound(path, digest) for _ in range(9)))) and len(read) == 1
        path.write_bytes(b"wrong")
        assert not await sound.is_sound(path, digest) and len(read) == 2
        path.unlink()
        assert not await sound.is_sound(path, digest)

    def test_memory_is_bounded(self, tmp_path: Path) -> None:
        sound = SoundFiles()
        for number in range(MAX_KNOWN + 9):
            sound.trust(tmp_path / str(number), (1, 1))
        assert len(sound._known) == MAX_KNOWN
