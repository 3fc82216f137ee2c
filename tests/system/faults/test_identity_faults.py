"""A board and its server, both real, while a credential is renewed: killed at each step on either side, restored from a
backup on either side. Nobody is ever locked out who has not lost the folder."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from aggregator.http.app import make_app
from aggregator.run.setup import Opened, open_run
from aggregator.store.credentials import RENEW_AFTER_S
from aggregator.store.folder import Folder
from aggregator.store.store import Store
from edge_client.agent.renewal import Renewal
from edge_client.errors import DiskError
from edge_client.network.api import Api
from edge_client.network.errors import Unavailable, UnknownCredentialError
from edge_client.network.retry import Backoff
from edge_client.network.transport import Transport
from edge_client.state.folder import Identity, StateFolder
from tests.fakes.clock import FakeClock
from wire.messages import Enrol, Task

pytestmark = pytest.mark.slow  # a long table of faults


class Killed(BaseException):
    """SIGKILL, as far as one process can play it."""


class World:
    """A server's folder and a board's, with clocks; either side may be started again."""

    def __init__(self, server: Folder, board: Path) -> None:
        self.server, self.board = server, StateFolder(board)
        self.clock, self.wall = FakeClock(), FakeClock()
        self.wall.now = 1.8e9

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[Opened, str]]:
        opened = open_run(self.server, self.clock, self.wall)
        try:
            async with TestServer(make_app(opened, "0" * 64)) as running:
                yield opened, str(running.make_url("")).rstrip("/")
        finally:
            opened.store.close()

    @asynccontextmanager
    async def client(self, url: str) -> AsyncIterator[tuple[Api, Renewal]]:
        """A board's client as it starts: it knows what its folder says."""
        identity = self.identity
        async with Transport(url, credential=identity.credential if identity else "") as transport:
            api = Api(transport, self.backoff)
            transport.keeper = renewal = Renewal(api, self.board)
            yield api, renewal

    def backoff(self, **arguments: Any) -> Backoff:
        return Backoff(**{"attempts": 6, **arguments}, sleep=lambda _: asyncio.sleep(0))

    @property
    def identity(self) -> Identity | None:
        return self.board.read_identity()

    async def enrol(self) -> Identity:
        """Join once."""
        async with self.serving() as (opened, url), self.client(url) as (api, _):
            token = self.server.secret(self.server.join_token)
            message = Enrol(protocol=1, token=token, install_id="1" * 32, name="ada", client_version="1")
            enrolled = await api.enrol(message)
            identity = Identity(server=url, install_id="1" * 32, device=enrolled.device, credential=enrolled.credential)
            self.board.write_identity(identity)
            assert len(opened.store.devices()) == 1
            return identity

    async def turn(self, api: Api, renewal: Renewal) -> Task:
        """Ask for work, and do what the answer says beside it."""
        task = await api.work(after=-1, wait_s=0)
        await renewal.heed(task)
        return task

    async def live(self, turns: int = 3) -> None:
        """A whole life of both sides, from their starts."""
        async with self.serving() as (_, url), self.client(url) as (api, renewal):
            for _ in range(turns):
                await self.turn(api, renewal)


@pytest.fixture
async def world(make_folder: Callable[..., Folder], tmp_path: Path) -> World:
    made = World(make_folder(), tmp_path / "board")
    made.board.lock()
    await made.enrol()
    return made


def dies(fired: list[str], owner: Any, name: str, when: str, at: int, patch: pytest.MonkeyPatch) -> None:
    """Let the `at`-th call of `owner.name` die before or after it has done its work."""
    original, calls = getattr(owner, name), [0]

    def count() -> bool:
        calls[0] += 1
        return calls[0] == at

    def die() -> None:
        fired.append(f"{when} {name} {at}")
        raise Killed

    def call(*arguments: Any, **keywords: Any) -> Any:
        now = count()
        if now and when == "before":
            die()
        result = original(*arguments, **keywords)
        if now and when == "after":
            die()
        return result

    async def call_async(*arguments: Any, **keywords: Any) -> Any:
        now = count()
        if now and when == "before":
            die()
        result = await original(*arguments, **keywords)
        if now and when == "after":
            die()
        return result

    patch.setattr(owner, name, call_async if asyncio.iscoroutinefunction(original) else call)


STEPS: tuple[tuple[Any, str, int], ...] = (
    (StateFolder, "write_identity", 1),  # the next one is drawn and kept
    (Api, "renew", 1),  # the server is told
    (StateFolder, "write_identity", 2),  # it is the one in use
    (Api, "work", 2),  # it is used
)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name", "at"), STEPS, ids=lambda step: str(getattr(step, "__name__", step)))
async def test_a_board_killed_at_any_step_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, when: str
) -> None:
    """Both sides start again from what their folders say: the same device, no token, in the end a new credential."""
    before, fired = world.identity, list[str]()
    assert before is not None
    world.wall.advance(RENEW_AFTER_S)
    with monkeypatch.context() as patch:
        dies(fired, owner, name, when, at, patch)
        with pytest.raises(Killed):
            await world.live()
    assert fired == [f"{when} {name} {at}"]

    await world.live()

    after = world.identity
    assert after is not None and (after.device, after.install_id) == (before.device, before.install_id)
    assert after.credential != before.credential and not after.next_credential
    async with world.serving() as (opened, url), Transport(url, credential=before.credential) as stale:
        assert len(opened.store.devices()) == 1
        with pytest.raises(UnknownCredentialError, match="was renewed"):
            await Api(stale).work(after=-1, wait_s=0)


@pytest.mark.parametrize("name", ["offer_credential", "take_credential"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_server_killed_at_either_row_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, when: str
) -> None:
    """The row is there or not, the answer is lost: the board asks again, and the server knows it."""
    before, fired = world.identity, list[str]()
    assert before is not None
    world.wall.advance(RENEW_AFTER_S)
    device_of = Store.device_of

    def dead_once_fired(store: Store, credential: str) -> Any:
        if fired:
            raise OSError("this process was killed")
        return device_of(store, credential)

    with monkeypatch.context() as patch:
        dies(fired, Store, name, when, 1, patch)
        patch.setattr(Store, "device_of", dead_once_fired)
        with pytest.raises(Unavailable):
            await world.live()
    assert fired == [f"{when} {name} 1"]

    await world.live()

    after = world.identity
    assert after is not None and after.device == before.device and after.credential != before.credential


async def test_a_disk_that_takes_nothing_leaves_the_credential_in_use(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full at either write: the board works on, and renews when there is space."""
    before = world.identity
    assert before is not None
    world.wall.advance(RENEW_AFTER_S)
    for space_for in (0, 1):
        tried = write_only(space_for, monkeypatch)
        await world.live()
        monkeypatch.undo()
        left = world.identity
        assert len(tried) > space_for and left is not None and left.credential == before.credential

    await world.live()

    after = world.identity
    assert after is not None and after.credential != before.credential


def write_only(space_for: int, patch: pytest.MonkeyPatch) -> list[Identity]:
    """Let so many identities be written, and no more; those that were to be."""
    write, tried = StateFolder.write_identity, list[Identity]()

    def full(folder: StateFolder, identity: Identity) -> None:
        tried.append(identity)
        if len(tried) > space_for:
            raise DiskError("no space left")
        write(folder, identity)

    patch.setattr(StateFolder, "write_identity", full)
    return tried


async def test_a_server_restored_from_a_backup_knows_the_board(world: World, tmp_path: Path) -> None:
    """The backup is of before the renewal: the board falls back to the credential of then, and renews again."""
    before = world.identity
    shutil.copytree(world.server.root, tmp_path / "backup")
    world.wall.advance(RENEW_AFTER_S)
    await world.live()
    renewed = world.identity
    shutil.rmtree(world.server.root)
    shutil.copytree(tmp_path / "backup", world.server.root)

    await world.live()

    after = world.identity
    assert before is not None and renewed is not None and after is not None
    assert after.device == before.device
    assert len({before.credential, renewed.credential, after.credential}) == 3, "it was renewed once more"


async def test_a_folder_put_back_on_the_board_is_told_that_there_is_another(world: World, tmp_path: Path) -> None:
    """An image of the card from before: nothing but a token helps, and the sentence says why."""
    shutil.copytree(world.board.path, tmp_path / "image")
    world.wall.advance(RENEW_AFTER_S)
    await world.live()
    shutil.copy(tmp_path / "image" / "identity.json", world.board.path / "identity.json")

    with pytest.raises(UnknownCredentialError, match="its new one is in use") as caught:
        await world.live()

    assert "--state" in caught.value.hint
