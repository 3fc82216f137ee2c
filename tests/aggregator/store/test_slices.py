"""Adapters cut to ranks: shared, and bounded in number and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aggregator.downloads import adapters
from aggregator.store.slices import MAX_CUTS, Cuts


def test_the_folder_stays_bounded_whatever_ranks_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used go first; the newest stays even if it alone is too large."""
    cuts = Cuts(tmp_path / "cuts")
    for rank in range(MAX_CUTS + 10):
        cuts.get(1, (rank,), lambda rank=rank: b"%d" % rank)  # type: ignore[misc]
    assert len(list((tmp_path / "cuts").iterdir())) == MAX_CUTS

    monkeypatch.setattr("aggregator.store.slices.MAX_CUTS_BYTES", 250)
    for rank in range(5):
        cuts.get(2, (rank,), lambda rank=rank: bytes([rank]) * 100)  # type: ignore[misc]
    assert sum(path.stat().st_size for path in (tmp_path / "cuts").iterdir()) <= 250
    newest = cuts.get(2, (9,), lambda: b"x" * 1000)
    assert [path.stat().st_size for path in (tmp_path / "cuts").iterdir()] == [1000] and newest.path.exists()


async def test_an_old_version_is_read_once_for_many_requests(
    make_folder: Any, start: Any, begin_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads of an older version share one cut, and do not each hold a decoded state in memory."""
    import asyncio

    server = await start(make_folder())
    boards = [await server.board("ada"), await server.board("bo")]
    for board, task in zip(boards, await begin_training(boards), strict=True):
        await board.train(task)
    assert (await boards[0].work(after=1)).spec.version == 2
    read: list[int] = []
    whole = adapters.read_version
    monkeypatch.setattr(adapters, "read_version", lambda *args: (read.append(args[2]), whole(*args))[1])

    await asyncio.gather(*(board.adapter(1, 2) for board in boards * 4))

    assert read == [1]
