"""A server that goes back in time under running boards: restored from a backup, or begun again. No board is started."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from aggregator.store.folder import Folder
from tests.fakes.live_server import LiveBoard, LiveServer

pytestmark = pytest.mark.slow

NAMES = ("ada", "bo")


@pytest.fixture
async def live(make_folder: Callable[..., Folder]) -> AsyncIterator[LiveServer]:
    server = LiveServer(make_folder({"run.rounds": 6, "rounds.deadline_s": 600.0, "rounds.profile_deadline_s": 600.0}))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def fleet(live: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Two boards, and their clients' lives."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    boards = [live.board(name, tmp_path) for name in NAMES]
    for board in boards:  # each trains once this file is gone
        board.worker_flags = ("--hold", str(tmp_path / f"hold-{board.name}"))
    lives = [asyncio.ensure_future(board.join()) for board in boards]
    yield boards, lives
    for life in lives:
        life.cancel()
    await asyncio.gather(*lives, return_exceptions=True)


async def copied(live: LiveServer, backup: Path) -> None:
    """Back the folder up, as the runbook says: with the server stopped."""
    await live.stop()
    shutil.copytree(live.folder.root, backup)
    await live.start()


async def put_back(live: LiveServer, backup: Path) -> None:
    await live.stop()
    shutil.rmtree(live.folder.root)
    shutil.copytree(backup, live.folder.root)
    await live.start()


@pytest.mark.parametrize("answered", [0, 1])
async def test_a_restored_backup_is_gone_on_with(
    live: LiveServer, fleet: tuple[list[LiveBoard], list[Any]], tmp_path: Path, answered: int
) -> None:
    """The backup is of an open round, with the update of one board or of none; the fleet is two rounds further when it
    is put back. Both boards go on in the round that is open again, to the end of the run."""
    boards, lives = fleet
    holds = [tmp_path / f"hold-{board.name}" for board in boards]
    for hold in holds[answered:]:
        hold.touch()
    await live.until(lambda run: run.open_round is not None and run.open_round.round == 1)
    await live.until(lambda run: run.open_round.accepted == answered)
    await copied(live, tmp_path / "backup")
    for hold in holds:
        hold.unlink(missing_ok=True)
    await live.until(lambda run: run.open_round is not None and run.open_round.round >= 3)

    await put_back(live, tmp_path / "backup")
    assert live.run.open_round.round == 1, "it went back"

    await asyncio.wait_for(asyncio.gather(*lives), 60)
    rounds = [(row.state, counts.accepted) for row, counts in live.run.rounds()]
    assert rounds == [("merged", 2)] * 6 and live.run.state.version == 7
    assert all(board.events("finished") for board in boards)


async def test_a_backup_of_before_training_is_gone_on_with(
    live: LiveServer, fleet: tuple[list[LiveBoard], list[Any]], tmp_path: Path
) -> None:
    """The backup knows both boards, and of what they sent their profiles at most; they have trained since. They go on
    to the end of the run."""
    boards, lives = fleet
    for board in boards:
        (tmp_path / f"hold-{board.name}").touch()
    await live.until(lambda run: len(run.boards) == len(NAMES))
    await copied(live, tmp_path / "backup")
    for board in boards:
        (tmp_path / f"hold-{board.name}").unlink()
    await live.until(lambda run: run.open_round is not None and run.open_round.round >= 2)

    await put_back(live, tmp_path / "backup")
    assert live.run.closed == 0, "it went back"

    await asyncio.wait_for(asyncio.gather(*lives), 60)
    assert [(row.state, counts.accepted) for row, counts in live.run.rounds()] == [("merged", 2)] * 6
    assert all(board.events("finished") for board in boards)
