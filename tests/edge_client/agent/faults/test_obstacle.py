"""A board whose disk or data fails in mid-run: it says so here and to its server, waits, and goes on by itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braid_common import atomic_file
from edge_client.agent.faults.data_watch import DataWatch
from edge_client.agent.faults.obstacle import MAX_DATA_TRIES
from edge_client.errors import ClientError, DiskError, ExitCode
from edge_client.jobs.messages import Progress
from edge_client.state.folder import StateFolder
from tests.fakes.server import FakeServer
from wire.messages import RoundSpec, Task


class FailingDisk:
    """Every write of whole files fails with an error of the operating system, while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fired: list[str] = []
        self.error = 0
        self.heals_after: int | None = None
        original = atomic_file.write_atomically

        def write(path: Path, data: Any) -> None:
            if self.error and self.heals_after is not None and len(self.fired) >= self.heals_after:
                self.error = 0
            if self.error:
                self.fired.append(path.name.rpartition(".")[2])
                raise OSError(self.error, os.strerror(self.error))
            original(path, data)

        for module in ("edge_client.state.folder", "edge_client.state.task_files", "edge_client.state.held_adapter"):
            monkeypatch.setattr(f"{module}.write_atomically", write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FailingDisk:
    return FailingDisk(monkeypatch)


WORDS = {
    errno.ENOSPC: "no space left for",
    errno.EDQUOT: "no space left for",
    errno.EROFS: "its file system is read-only",
    errno.EIO: "its disk fails",
}


@pytest.mark.slow
@pytest.mark.parametrize("error", WORDS, ids=lambda error: errno.errorcode[error])
async def test_a_disk_that_takes_nothing_is_waited_out(
    board: Any, server: FakeServer, disk: FailingDisk, error: int
) -> None:
    """From the first training on, five writes in a row: told once, the run is finished, each update counted once."""

    async def fail(_: Any) -> None:
        if not disk.fired:
            disk.error, disk.heals_after = error, 5

    server.faults["GET /v1/adapters/1"] = [fail]

    await board.join()

    assert len(disk.fired) == 5 and "trial" in disk.fired, "the fault fired, and the disk was tried out"
    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]
    (said,) = (event for event in board.events("notice") if WORDS[error] in event["message"])
    assert said["hint"] and board.folder.as_posix() in said["message"]
    told = [report.text for report in server.reports if report.kind == "event"]
    assert told[0].startswith("its disk is full, or cannot be written") and "it goes on" in told[1]
    assert not any(str(board.folder) in text for text in told), "no path leaves the board"


@pytest.mark.slow
async def test_a_status_that_cannot_be_written_stops_nothing(
    board: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """status.json is for people."""
    fired = []

    def fail(*_: Any) -> None:
        fired.append("status")
        raise DiskError("no space left for status.json")

    monkeypatch.setattr("edge_client.state.status.StatusFile._write", fail)

    await board.join()

    assert len(fired) > 10 and server.state == "finished"


@pytest.mark.slow
async def test_a_worker_that_finds_the_disk_full_trains_again(board: Any, server: FakeServer, tmp_path: Path) -> None:
    """The worker says DISK, as for a result that has no room: the round is gone on with, not given up."""
    board.worker_flags = ("--fail-once", "train", "--status", "10", "--memory", str(tmp_path / "faults"))

    await board.join()

    assert (tmp_path / "faults").read_text() == "fail train\n"
    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]


@pytest.mark.slow
async def test_data_that_stays_away_ends_the_board_with_a_word(board: Any, server: FakeServer) -> None:
    """After some minutes, for a person: exit status DATA, as at a start. The server has heard of it before."""
    board.worker_flags = ("--fail", str(int(ExitCode.DATA)))

    with pytest.raises(ClientError) as caught:
        await board.join()

    assert caught.value.exit_code is ExitCode.DATA
    assert 60 < sum(board.slept_s) < 900 and len(set(board.slept_s)) > 5
    told = [report.text for report in server.reports if report.kind == "event"]
    assert len(told) == 1 and told[0].startswith("its text cannot be read")
    assert len([line for line in server.requests if "/v1/work" in line and "wait=0" not in line]) == MAX_DATA_TRIES


async def test_what_waiting_does_not_mend_ends_at_once(board: Any) -> None:
    """A wrong setting is not waited out."""
    board.worker_flags = ("--fail", str(int(ExitCode.CONFIG)))

    with pytest.raises(ClientError) as caught:
        await board.join()

    assert caught.value.exit_code is ExitCode.CONFIG and not any(board.slept_s)


@pytest.mark.slow
async def test_an_adapter_that_no_worker_can_read_is_fetched_again(
    board: Any, server: FakeServer, tmp_path: Path
) -> None:
    """A damaged file in work/ is thrown away once; the second time it is the server's, and the board says so."""
    board.worker_flags = ("--fail-once", "train", "--status", "7", "--memory", str(tmp_path / "faults"))

    await board.join()

    assert (tmp_path / "faults").read_text() == "fail train\n" and server.state == "finished"
    fetched = [line for line in server.requests if line.startswith("GET /v1/adapters/1?")]
    assert len([line for line in fetched if "ranks=0." not in line]) == 2


@pytest.mark.slow
async def test_a_result_that_vanishes_while_it_is_sent_is_made_again(board: Any, server: FakeServer) -> None:
    """Somebody cleans work/ up in the middle of the upload."""
    gone = []

    async def lose(request: Any) -> None:
        for path in (board.folder / "work").glob("*.result"):
            path.unlink()
            gone.append(path.name)
        request.transport.abort()

    server.faults["PATCH /v1/uploads/1"] = [lose]

    await board.join()

    assert len(gone) == 1 and server.state == "finished"
    assert [round_id for round_id, _ in server.commits] == [1, 2]


# --- what the worker does without ---------------------------------------------------------------------------------


class Listener:
    """Hears what Events tells the terminal and the server."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notice(self, message: str, hint: str = "") -> None:
        self.said.append(message)


def test_a_change_of_the_data_is_told_once(make_watch: Callable[[Listener], DataWatch]) -> None:
    """By its checksum: the first job's is the measure; numbers for people lose it."""
    listener = Listener()
    watch = make_watch(listener)
    facts = {"data_crc32": 1.0, "n_train": 8.0, "n_held_out": 2.0}

    assert watch.seen({"loss": 1.0, **facts}) == {"loss": 1.0}
    assert watch.seen({"loss": 1.0}) == {"loss": 1.0} and watch.seen(facts) == {} and listener.said == []
    watch.seen({**facts, "data_crc32": 2.0, "n_train": 90.0, "n_held_out": 10.0})

    assert listener.said == [
        "data.jsonl has changed: from now on 90 examples are read to train on, and 10 to measure on"
    ]
    assert watch.n_held_out == 10


@pytest.fixture
def make_watch(board: Any) -> Callable[[Listener], DataWatch]:
    class Somebody:
        data = board.settings().data_spec
        n_held_out = 2

    class Events:
        def __init__(self, listener: Listener) -> None:
            self.console = listener

    return lambda listener: DataWatch(Somebody(), Events(listener))  # type: ignore[arg-type]


async def test_a_training_that_is_not_saved_is_told_and_goes_on(board: Any, server: FakeServer) -> None:
    """What the worker's progress says reaches the terminal once, and the server in words of ours."""
    task = Task(kind="train", run_id="run-1", spec=RoundSpec(round=1, version=1))
    async with board.client() as client:
        await client.enrol()
        for unsaved in ("", "no space left for /x", "no space left for /x", ""):
            client._events.progress(
                task,
                Progress(phase="train", step=1, steps=9, loss=1.0, tokens_per_s=1.0, peak_bytes=1, unsaved=unsaved),
            )
        await client._api.run()
        while not any(report.kind == "event" for report in server.reports):
            await client._api.run()

    (said,) = (event["message"] for event in board.events("notice"))
    assert said.startswith("no space left for /x; training goes on")
    assert [report.text for report in server.reports if report.kind == "event"] == [
        "its disk takes nothing: it trains on without saving"
    ]


def test_a_folder_that_cannot_be_tried_out_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves nothing behind when it can."""
    folder = StateFolder(tmp_path / "state")
    folder.lock()
    before = sorted(folder.path.iterdir())
    folder.try_out()
    assert sorted(folder.path.iterdir()) == before

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edge_client.state.folder.write_atomically", fail)
    with pytest.raises(DiskError, match="no space left"):
        folder.try_out()
    folder.unlock()
    (folder.path / "trial").write_bytes(b"of a client that was killed")
    folder.lock()
    assert not (folder.path / "trial").exists()
    folder.unlock()
