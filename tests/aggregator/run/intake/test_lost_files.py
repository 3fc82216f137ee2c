"""Files of accepted uploads and of versions that are damaged, missing or unreadable: put aside, told of, asked for
again, and the run goes on."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.errors import DiskError, ExitCode
from aggregator.report.tables import status_text
from aggregator.store.blobs import Blobs
from braid_common.base import files
from wire.messages import Receipt

pytestmark = pytest.mark.slow  # a long table of faults

SETTINGS = {"train.targets": ["q"], "merge.max_rank": 1, "rounds.min_devices": 3, "rounds.quorum": 3}
NAMES = ("a", "bo", "cyd")

EXPECTED: dict[str, Any] = {}
"""The products of a round without a loss, by weight, made once: boards send the same in every test."""


class BadDisk:
    """A disk on which a file is harmed. `fired`: whether it was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch, self.fired = monkeypatch, False

    def harm(self, path: Path, how: str) -> None:
        before = path.read_bytes()
        if how == "missing":
            path.unlink()
        elif how == "cut off":
            path.write_bytes(before[: len(before) // 2])
        elif how == "unreadable":
            self._refuse(path)
            return
        else:
            middle = len(before) // 2
            path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        self.fired = True

    def _refuse(self, path: Path) -> None:
        read_bytes, file_digest = Path.read_bytes, files.file_digest

        def refused(file: Path) -> None:
            if file == path:
                self.fired = True
                raise OSError(errno.EIO, "Input/output error")

        self._monkeypatch.setattr(Path, "read_bytes", lambda file: (refused(file), read_bytes(file))[1])
        self._monkeypatch.setattr(
            "aggregator.store.blobs.file_digest", lambda file: (refused(file), file_digest(file))[1]
        )

    def mend(self) -> None:
        self._monkeypatch.undo()


@pytest.fixture
def bad_disk(monkeypatch: pytest.MonkeyPatch) -> BadDisk:
    return BadDisk(monkeypatch)


@pytest.fixture
async def training(make_folder: Any, start: Any, begin_training: Any) -> Any:
    """A server whose round lacks the last of three boards, and what the three make where nothing is harmed."""
    if not EXPECTED:
        whole = await start(make_folder(SETTINGS, name="whole"))
        await _begun(whole, begin_training, 3)
        weights = whole.run.state.weights
        EXPECTED.update({name: weight.frozen_b @ weight.frozen_a for name, weight in weights.items()})
    server = await start(make_folder(SETTINGS))
    boards, tasks = await _begun(server, begin_training, 2)
    return server, boards, tasks, EXPECTED


async def _begun(server: Any, begin_training: Any, n_answered: int) -> Any:
    boards = [await server.board(name) for name in NAMES]
    tasks = await begin_training(boards)
    for board, task in list(zip(boards, tasks, strict=True))[:n_answered]:
        assert (await board.train(task, rank=1)).accepted
    if n_answered == len(NAMES):
        assert (await boards[0].work(after=1)).spec.version == 2
    return boards, tasks


async def restarted(server: Any, boards: list[Any], start: Any, stop: Any, harm: Any) -> Any:
    await stop(server)
    harm()
    again = await start(server.opened.folder)
    for board in boards:
        board.server = again
    return again


async def told(server: Any, words: str) -> None:
    """It is on the page, in `status` and in its JSON."""
    facts = await server.status()
    assert any(words in warning for warning in facts["run"]["warnings"]), facts["run"]["warnings"]
    assert words in status_text(facts)
    async with server.client.get("/", headers={"Authorization": f"Bearer {server.operator}"}) as response:
        assert words in await response.text()


HOW = ["damaged", "missing", "cut off", "unreadable"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("when", ["running", "stopped"])
async def test_a_lost_update_is_asked_for_again(
    training: Any, start: Any, stop: Any, bad_disk: BadDisk, when: str, how: str
) -> None:
    """Found when the round closes, or by the next start: its board alone trains again, and the round makes what it does
    where nothing is lost, but for the order of its sums."""
    server, boards, tasks, expected = training
    lost = server.opened.store.update_of(1, boards[0].device)
    path = server.opened.folder.blobs / lost.digest

    if when == "stopped":
        server = await restarted(server, boards, start, stop, lambda: bad_disk.harm(path, how))
        assert server.run.open_round.accepted == 2, "it listens before it has read them"
    else:
        bad_disk.harm(path, how)
        assert (await boards[2].train(tasks[2], rank=1)).accepted
    task = await boards[0].work(after=1)
    assert bad_disk.fired and (task.kind, task.spec) == ("train", tasks[0].spec)
    assert (await boards[1].work(after=1, wait_s=0)).kind == "wait"

    await told(server, "the update for round 1 of a is lost")
    quarantined = list(server.opened.folder.quarantine.glob("*"))
    assert [file.name for file in quarantined] == ([] if how == "missing" else [lost.digest])
    assert [loss.digest for loss in server.opened.store.losses()] == [lost.digest]
    bad_disk.mend()
    assert (await boards[0].train(task, rank=1)).accepted
    if when == "stopped":
        assert (await boards[2].train(tasks[2], rank=1)).accepted
    assert (await boards[1].work(after=1)).spec.round == 2
    row, counts = server.run.rounds()[0]
    assert (row.state, counts.accepted) == ("merged", 3)
    for name, weight in server.run.state.weights.items():
        np.testing.assert_allclose(weight.frozen_b @ weight.frozen_a, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", HOW)
async def test_a_lost_profile_is_asked_for_again(
    make_folder: Any, start: Any, stop: Any, bad_disk: BadDisk, how: str
) -> None:
    server = await start(make_folder(SETTINGS))
    boards = [await server.board(name) for name in NAMES]
    for board in boards[:2]:
        assert (await board.send_profile())[0] == 200
    path = server.opened.folder.blobs / server.opened.store.profile_of(boards[1].device).digest

    server = await restarted(server, boards, start, stop, lambda: bad_disk.harm(path, how))

    assert (await boards[1].work(after=0)).kind == "profile" and bad_disk.fired
    await told(server, "the profile of bo is lost")
    bad_disk.mend()
    for board in boards[1:]:
        status, answer = await board.send_profile()
        assert status == 200 and isinstance(answer, Receipt) and answer.accepted
    assert (await boards[0].work()).kind == "train"


@pytest.fixture
async def second_version(make_folder: Any, start: Any, begin_training: Any) -> Any:
    """A server whose first round has merged, and its boards."""
    server = await start(make_folder({**SETTINGS, "run.rounds": 4}))
    boards = [await server.board(name) for name in NAMES]
    for board, task in zip(boards, await begin_training(boards), strict=True):
        assert (await board.train(task, rank=1)).accepted
    assert (await boards[0].work(after=1)).spec.version == 2
    return server, boards


@pytest.mark.parametrize("how", [how for how in HOW if how != "unreadable"])
async def test_a_lost_newest_version_falls_back_to_the_one_before(
    second_version: Any, start: Any, stop: Any, bad_disk: BadDisk, how: str
) -> None:
    """The round that was open on it is over, another begins on the version before, and ends."""
    server, boards = second_version
    before = server.opened.store.versions()
    path = server.opened.folder.blobs / before[2]

    server = await restarted(server, boards, start, stop, lambda: bad_disk.harm(path, how))

    tasks = [await board.work(after=2) for board in boards]
    assert bad_disk.fired and {(task.spec.round, task.spec.version) for task in tasks} == {(3, 1)}
    await told(server, "version 2 is lost, the run goes on from version 1")
    bad_disk.mend()
    for board, task in zip(boards, tasks, strict=True):
        assert (await board.adapter(1, 1)).version == 1
        assert (await board.train(task, rank=1)).accepted
    assert (await boards[0].work(after=3)).spec.version == 2
    assert server.opened.store.versions()[2] != before[2]
    states = [(row.round, row.state) for row, _ in server.run.rounds()]
    assert states == [(1, "merged"), (2, "abandoned"), (3, "merged"), (4, "open")]


async def test_a_newest_version_that_the_disk_cannot_read_is_waited_for(
    second_version: Any, start: Any, stop: Any, bad_disk: BadDisk
) -> None:
    """The start fails with the disk's error, and forgets nothing; the next one goes on where the run was. Whoever moves
    the file away has decided that it is lost."""
    server, boards = second_version
    before = server.opened.store.versions()
    path = server.opened.folder.blobs / before[2]
    rows = [(row.round, row.version, row.state) for row, _ in server.run.rounds()]

    with pytest.raises(DiskError, match="the disk reports an error") as refused:
        await restarted(server, boards, start, stop, lambda: bad_disk.harm(path, "unreadable"))

    assert bad_disk.fired and refused.value.exit_code is ExitCode.DISK and "move that file away" in refused.value.hint
    bad_disk.mend()
    again = await start(server.opened.folder)
    assert again.opened.store.versions() == before and not again.opened.store.losses()
    assert [(row.round, row.version, row.state) for row, _ in again.run.rounds()] == rows
    again = await restarted(again, boards, start, stop, path.unlink)
    assert again.run.state.version == 1


async def test_a_start_reads_no_upload(training: Any, start: Any, stop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much was accepted, a server listens once it has read the newest version: the rest is looked through
    beside its work."""
    server = training[0]
    await stop(server)
    read: list[str] = []
    looked_through = threading.Event()
    get, check = Blobs.get, Blobs.check

    def look(blobs: Blobs, digest: str) -> None:
        read.append(digest)
        if len(read) == 3:
            looked_through.set()
        check(blobs, digest)

    monkeypatch.setattr(Blobs, "get", lambda blobs, digest: (read.append(digest), get(blobs, digest))[1])
    monkeypatch.setattr(Blobs, "check", look)

    again = await start(server.opened.folder)

    versions = again.opened.store.versions()
    assert read[:1] == [versions[1]] and again.run.open_round.accepted == 2
    assert await asyncio.to_thread(looked_through.wait, 20)
    assert set(read[1:]) == {answer.digest for answer in again.opened.store.updates(1)}
