"""A disk or database that refuses while a round is judged, merged, stored or opened: the server stays up, says so to
people, and goes on by itself with the same bits."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import event

from aggregator.errors import DiskError
from aggregator.merge.state import encode_state
from aggregator.report.tables import status_text
from aggregator.run.upkeep.short_writes import ShortWrites
from aggregator.run.upkeep.trouble import FIRST_PAUSE_S, LONGEST_PAUSE_S, Trouble, is_full
from aggregator.store import database
from aggregator.store.blobs import Blobs

pytestmark = pytest.mark.slow  # a long table of faults

SETTINGS = {"train.targets": ["q"], "merge.max_rank": 1}
FULL = "database or disk is full"

EXPECTED: list[bytes] = []
"""The version of a round without a fault, made once: boards send the same in every test."""


@dataclass
class Disk:
    """A disk that refuses at one place. `fired`: the errors that it has raised."""

    error: Callable[[], BaseException] | None = None
    fired: list[BaseException] = field(default_factory=list)

    def touch(self) -> None:
        if self.error is not None:
            self.fired.append(self.error())
            raise self.fired[-1]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr("aggregator.run.upkeep.trouble.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("aggregator.run.upkeep.trouble.LONGEST_PAUSE_S", 0.01)
    return Disk()


def refuse_file(disk: Disk, monkeypatch: pytest.MonkeyPatch, where: str, number: int) -> None:
    """Have one step of writing a file fail with this errno."""
    whole = getattr(os, where)

    def refuse(*arguments: Any, **options: Any) -> Any:
        disk.touch()
        return whole(*arguments, **options)

    disk.error = lambda: OSError(number, os.strerror(number))
    monkeypatch.setattr(os, where, refuse)


def refuse_row(disk: Disk, server: Any, statement: str, sentence: str) -> None:
    """Have SQLite's driver fail at a statement."""

    def refuse(_cursor: object, text: str, *_: object) -> None:
        if text.startswith(statement):
            disk.touch()

    disk.error = lambda: sqlite3.OperationalError(sentence)
    event.listen(server.opened.store._database._engine, "do_execute", refuse)


async def until(is_so: Callable[[], Any]) -> None:
    """Wait for something; whatever comes of it has its own test."""
    for _ in range(2000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@pytest.fixture
async def training(make_folder: Any, start: Any, begin_training: Any) -> Any:
    """A server with two boards that are told to train, and the version that they make of it where nothing fails."""
    if not EXPECTED:
        whole = await start(make_folder(SETTINGS, name="whole"))
        boards = [await whole.board(name) for name in ("a", "bo")]
        await trained(boards, await begin_training(boards))
        await boards[0].work(after=1)
        EXPECTED.append(encode_state(whole.run.state))
    server = await start(make_folder(SETTINGS))
    boards = [await server.board(name) for name in ("a", "bo")]
    return server, boards, await begin_training(boards), EXPECTED[0]


async def trained(boards: list[Any], tasks: list[Any]) -> None:
    for board, task in zip(boards, tasks, strict=True):
        assert (await board.train(task, rank=1)).accepted


async def is_told_and_serves(server: Any, boards: list[Any], words: str) -> None:
    """The sentence is on the page, in `status` and in the log, once; boards are told to wait."""
    facts = await server.status()
    assert any(words in warning for warning in facts["run"]["warnings"]), facts["run"]["warnings"]
    assert words in status_text(facts)
    async with server.client.get("/", headers={"Authorization": f"Bearer {server.operator}"}) as response:
        assert words in await response.text()
    assert sum("waits for its disk" in line for line in server.run.events) == 1
    async with server.client.get("/readyz") as response:
        assert response.status == 200
    assert (await boards[0].work(wait_s=0, after=1)).kind == "wait"


FILES = [("fsync", errno.ENOSPC), ("fsync", errno.EIO), ("open", errno.EROFS), ("open", errno.EDQUOT)]


@pytest.mark.parametrize(("where", "number"), FILES)
async def test_a_version_that_cannot_be_written_waits(
    training: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    """While the round is merged, the disk is full, broken or read-only: the merged version is kept, and stored when the
    disk takes it."""
    server, boards, tasks, expected = training
    merges, whole = [], server.run._publisher._make

    def make(*arguments: Any) -> Any:
        merges.append(arguments)
        made = whole(*arguments)
        refuse_file(disk, monkeypatch, where, number)  # from here on
        return made

    monkeypatch.setattr(server.run._publisher, "_make", make)
    await trained(boards, tasks)
    await until(lambda: len(disk.fired) > 2)

    words = {errno.ENOSPC: "the disk is full", errno.EIO: "reports an error", errno.EROFS: "is read-only"}
    await is_told_and_serves(server, boards, words.get(number, "quota"))

    disk.error = None
    assert (await boards[0].work(after=1)).spec.round == 2
    assert encode_state(server.run.state) == expected and len(merges) == 1
    assert not (await server.status())["run"]["warnings"] and "goes on" in "\n".join(server.run.events)


ROWS = [
    ("INSERT INTO updates", FULL),
    ("UPDATE rounds", FULL),
    ("UPDATE rounds", "disk I/O error"),
    ("UPDATE rounds", "attempt to write a readonly database"),
    ("INSERT INTO versions", FULL),
    ("INSERT INTO rounds", FULL),
]


@pytest.mark.parametrize(("statement", "sentence"), ROWS)
async def test_a_row_that_cannot_be_written_waits(training: Any, disk: Disk, statement: str, sentence: str) -> None:
    """The row of a judgement, of the version and the end of its round, of the next round."""
    server, boards, tasks, expected = training
    refuse_row(disk, server, statement, sentence)
    for board, task in zip(boards, tasks, strict=True):
        assert (await board.patch(1, board.update(task, rank=1)))[0] == 202
    await until(lambda: len(disk.fired) > 2)

    await is_told_and_serves(server, boards, sentence)

    disk.error = None
    assert (await boards[0].work(after=1)).spec.round == 2
    await trained(boards, tasks)  # sent again by boards that did not hear: the same receipts
    row, counts = server.run.rounds()[0]
    assert (row.state, counts.accepted, encode_state(server.run.state)) == ("merged", 2, expected)


@pytest.mark.parametrize("point", ["judged", "merged"])
async def test_a_locked_database_is_waited_for(
    make_folder: Any, start: Any, begin_training: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Another program holds the write lock for longer than a writer waits, when an update is judged or at the round's
    end."""
    monkeypatch.setattr("aggregator.store.database.BUSY_TIMEOUT_S", 0.05)
    server = await start(make_folder(SETTINGS))
    boards = [await server.board(name) for name in ("a", "bo")]
    tasks = await begin_training(boards)
    other = sqlite3.connect(server.opened.folder.database, isolation_level=None, check_same_thread=False)
    name = {"judged": "get", "merged": "put"}[point]
    whole = getattr(Blobs, name)

    def lock(*arguments: Any) -> Any:
        if not other.in_transaction and not disk.fired:
            other.execute("BEGIN IMMEDIATE")
        return whole(*arguments)

    begin = server.run.trouble.begin
    monkeypatch.setattr(server.run.trouble, "begin", lambda error: (disk.fired.append(error), begin(error))[1])
    monkeypatch.setattr(Blobs, name, lock)
    for board, task in zip(boards, tasks, strict=True):
        if other.in_transaction:
            break
        assert (await board.patch(1, board.update(task, rank=1)))[0] in (202, 503)
    await until(lambda: disk.fired)

    assert other.in_transaction and "database is locked" in str(disk.fired[0])
    await is_told_and_serves(server, boards, "database is locked")

    other.execute("ROLLBACK")
    for board, task in zip(boards, tasks, strict=True):  # each goes on where it was refused
        body = board.update(task, rank=1)
        offset = server.opened.uploads.size(board.device, 1, hashlib.sha256(body).hexdigest())
        assert (await board.upload(1, body, offset=offset))[0] == 200
    assert (await boards[0].work(after=1)).spec.round == 2
    assert [counts.accepted for _, counts in server.run.rounds()] == [2, 0]
    other.close()


async def test_what_cannot_be_removed_stays(training: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The round's files cannot be removed after the merge: people are told, and the run goes on."""
    server, boards, tasks, expected = training
    sweep = Blobs.sweep

    def refuse(*arguments: Any) -> int:
        disk.touch()
        return sweep(*arguments)

    disk.error = lambda: OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr(Blobs, "sweep", refuse)
    await trained(boards, tasks)

    assert (await boards[0].work(after=1)).spec.round == 2 and len(disk.fired) == 1
    assert encode_state(server.run.state) == expected
    assert any("stays on the disk" in line for line in server.run.events)


async def test_the_first_version_waits_for_the_disk(
    make_folder: Any, start: Any, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The basis that profiles make is written when it can be."""
    server = await start(make_folder(SETTINGS))
    boards = [await server.board(name) for name in ("a", "bo")]
    refuse_row(disk, server, "INSERT INTO versions", FULL)
    for board in boards:
        assert (await board.send_profile())[0] == 200
    await until(lambda: disk.fired)
    assert server.run.state.version == 0

    disk.error = None
    assert (await boards[0].work()).kind == "train" and server.run.state.version == 1


async def test_a_damaged_database_is_told_without_a_traceback(
    training: Any, disk: Disk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that meets damage is answered 503: its board tries again, and the log says what to do."""
    server, (board, *_), _, _ = training
    refuse_row(disk, server, "SELECT updates", FULL)
    disk.error = lambda: sqlite3.DatabaseError("database disk image is malformed")
    monkeypatch.setattr(database, "is_whole", lambda path: False)  # asked again, it is damaged still

    status, answer, _ = await board.patch(1, b"x")

    assert disk.fired and (status, answer.code) == (503, "busy")
    assert any("aggregator check" in line.message and line.exc_info is None for line in caplog.records)


async def test_whoever_waits_behind_a_refused_write_is_refused_too() -> None:
    """A locked database is waited for once, not once by each board."""
    lock, refused = ShortWrites(), []

    async def write(number: int) -> None:
        try:
            async with lock:
                await asyncio.sleep(0)
                raise DiskError(f"locked for {number}")
        except DiskError as error:
            refused.append(error.message)

    await asyncio.gather(*(write(number) for number in range(3)))
    assert refused == ["locked for 0"] * 3

    async with lock:
        refused.clear()
    assert not refused


def test_pauses_grow_and_news_is_told_once() -> None:
    """A second each at first, and never more than the longest."""
    trouble, full = Trouble(), OSError(errno.ENOSPC, "No space left on device")
    answers = [trouble.begin(full) for _ in range(7)]
    assert [is_news for is_news, _ in answers] == [True] + [False] * 6
    assert [pause_s for _, pause_s in answers] == [FIRST_PAUSE_S, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert trouble.begin(OSError(errno.EIO, "Input/output error"))[0]
    assert trouble.end() and not trouble.end() and trouble.begin(full) == (True, FIRST_PAUSE_S)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, ""), True),
        (OSError(errno.EDQUOT, ""), True),
        (DiskError(f"The database cannot be used: {FULL}"), True),
        (OSError(errno.EROFS, ""), False),
        (DiskError("The database cannot be used: database is locked"), False),
    ],
)
def test_what_is_a_full_disk(error: BaseException, full: bool) -> None:
    assert is_full(error) is full
