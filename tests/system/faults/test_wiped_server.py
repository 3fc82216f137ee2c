"""A server that is set up anew at its old address, under a board that runs: real on both sides, but for torch."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer, unused_port

from aggregator.http.app import make_app
from aggregator.run.setup import Opened, open_run
from aggregator.store.folder import Folder
from aggregator.store.secrets import secret_hash
from edge_client.network.retry import Backoff
from edge_client.state.folder import StateFolder
from tests.fakes.aggregator_command import call
from tests.fakes.board import FakeBoard
from tests.fakes.server import FakeServer

pytestmark = pytest.mark.slow

ALONE = {"rounds.min_devices": 1, "rounds.quorum": 1, "rounds.deadline_s": 600.0, "rounds.profile_deadline_s": 600.0}


class Board(FakeBoard):
    """A board whose pauses are short, and real: a server in the same process needs them."""

    def backoff(self, **arguments: Any) -> Backoff:
        return Backoff(**arguments, sleep=self._short_sleep)

    async def _short_sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await asyncio.sleep(min(delay_s, 0.03))


class Place:
    """One address, at which a server of whichever folder listens."""

    def __init__(self) -> None:
        self.port = unused_port()
        self.opened: Opened | None = None
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, folder: Folder) -> None:
        self.opened = open_run(folder, time.monotonic)
        self._stack.callback(self.opened.store.close)
        app = make_app(self.opened, secret_hash(folder.secret(folder.operator_token)))
        await self._stack.enter_async_context(TestServer(app, port=self.port))

    async def stop(self) -> None:
        await self._stack.aclose()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async def look() -> None:
            while not is_so():  # noqa: ASYNC110 - what is looked at tells nobody
                await asyncio.sleep(0.02)

        await asyncio.wait_for(look(), 60)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    yield made
    await made.stop()


class Life:
    """A board in the first round of a server whose folder is lost, and `new`, the folder of the one that follows."""

    def __init__(self, place: Place, board: Board, old: Folder, new: Folder) -> None:
        self.place, self.board, self.old, self.new = place, board, old, new
        self._task: asyncio.Future[None] | None = None

    def begin(self, token: str) -> None:
        self._task = asyncio.ensure_future(self.board.join(token=token))

    async def to_end(self) -> None:
        assert self._task is not None
        await asyncio.wait_for(self._task, 60)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def words(self) -> list[str]:
        return [event["message"] for event in self.board.events("offline")]


@pytest.fixture
async def life(
    place: Place, make_folder: Callable[..., Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Life]:
    """The board trains while its server is stopped and the folder removed; nobody listens yet."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    old = make_folder(ALONE)
    await place.start(old)
    board = Board(FakeServer(base=tmp_path, url=place.url), tmp_path / "board", watch_every_s=0.03)
    hold = tmp_path / "hold"
    hold.touch()
    board.worker_flags = ("--hold", str(hold))  # it trains until this file is gone
    made = Life(place, board, old, make_folder(ALONE, name="new"))
    made.begin(old.secret(old.join_token))
    await place.until(lambda: any(event["phase"] == "train" for event in board.events("phase")))
    await place.stop()
    token = old.secret(old.join_token)
    shutil.rmtree(old.root)
    old.root.mkdir()
    old.join_token.write_text(token)
    hold.unlink()
    yield made
    await made.stop()


def install_id(life: Life) -> str:
    identity = StateFolder(life.board.folder).read_identity()
    assert identity is not None and identity.credential
    return identity.install_id


async def test_a_board_with_a_valid_token_is_let_in_again(place: Place, life: Life) -> None:
    """The join token was saved, and nothing else: nobody starts a board, and it does the whole of the new run."""
    before = install_id(life)
    shutil.copy(life.old.join_token, life.new.join_token)

    await place.start(life.new)
    await life.to_end()

    assert place.opened is not None and place.opened.run.state.version == 3
    assert len(place.opened.store.devices()) == 1 and install_id(life) == before
    assert life.board.events("finished") and not any("not known" in text for text in life.words())


async def test_the_hint_for_a_lost_board_works(place: Place, life: Life) -> None:
    """Its token was for the old server: it keeps trying, and says what helps. Done to the letter, a token made on the
    new server and the board started again with it, it is let in, and does the whole of the new run."""
    before = install_id(life)
    await place.start(life.new)
    await place.until(lambda: any("not known" in text for text in life.words()))
    n_pauses = len(life.board.slept_s)
    await place.until(lambda: len(life.board.slept_s) > n_pauses + 5)
    (told,) = (event for event in life.board.events("offline") if "not known" in event["message"])
    assert "`aggregator token create DIR`" in told["hint"] and "start this board again with it" in told["hint"]
    assert place.opened is not None and not place.opened.store.devices()

    await life.stop()
    status, secret = call("token", "create", life.new.root)
    assert status == 0
    life.begin(secret.splitlines()[0].strip())
    await life.to_end()

    assert place.opened.run.state.version == 3 and install_id(life) == before
    assert len(place.opened.store.devices()) == 1 and life.board.events("finished")
