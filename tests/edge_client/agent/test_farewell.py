"""A board that ends before its run does tells the server why, and nothing of what it trains on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edge_client.agent.farewell import STOPPED, farewell, say_farewell_from
from edge_client.errors import (
    BaseModelError,
    ClientError,
    ConfigError,
    DataError,
    DiskError,
    ExitCode,
    LockedError,
    NoPlanError,
    RevokedError,
    UnreachableError,
)
from edge_client.host.deaths import Death
from edge_client.state.folder import StateFolder
from edge_client.worker.process import WorkerLost
from wire.limits import MAX_TEXT_CHARS
from wire.messages import Report

SECRET = "/home/ada/patients.jsonl, line 3: Mrs Smith came in with"


def endings(server: Any) -> list[tuple[float, str]]:
    """Exit status and sentence of every farewell that the server heard."""
    return [(report.values["exit_status"], report.text) for report in server.reports if report.kind == "ended"]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (DataError(SECRET), 4, "its text cannot be used"),
        (ConfigError(SECRET), 3, "a setting"),
        (DiskError(SECRET), 10, "its state folder"),
        (KeyError(SECRET), 1, "a bug of the client (KeyError)"),
        (ClientError(SECRET), 1, "a bug of the client"),
        (WorkerLost(SECRET, "", ran_short=False), 1, "its training process ended again and again"),
        (WorkerLost.of(Death(SECRET, "", ExitCode.TORCH)), 12, "torch does not run on its processor"),
        (asyncio.CancelledError(), 0, STOPPED),
    ],
)
def test_the_boards_text_and_its_place_stay_on_the_board(error: BaseException, status: int, said: str) -> None:
    """Of errors that may quote a text or name a file of texts, the server learns the kind."""
    report = farewell(error)

    assert report is not None and report.kind == "ended"
    assert report.values == {"exit_status": status}
    assert said in report.text
    assert not any(word in report.text for word in ("ada", "patients", "Smith"))


def test_what_is_about_the_base_or_the_memory_is_told_in_full() -> None:
    """An operator can act on these; no control character of theirs is sent, and no more than a text holds."""
    for error in (
        BaseModelError("the base\x1b is not the run's" + "!" * 3000),
        NoPlanError("the smallest needs 9 GiB"),
    ):
        report = farewell(error)
        assert report is not None
        assert report.text[:8] == error.message[:8] and "\x1b" not in report.text
        assert len(report.text) <= MAX_TEXT_CHARS


@pytest.mark.parametrize("error", [RevokedError("out"), LockedError("in use"), UnreachableError("away")])
def test_nothing_is_said_to_a_server_that_knows_or_is_not_there(error: ClientError) -> None:
    """A revoked board was told so by the server; a locked folder is another client's, who goes on."""
    assert farewell(error) is None


async def test_too_little_memory_is_told(board: Any, server: Any) -> None:
    """The board ends with its own error, and the server has heard why."""
    board.memory_bytes = 100 << 20

    with pytest.raises(NoPlanError):
        await board.join()

    ((status, text),) = endings(server)
    assert status == ExitCode.MEMORY and "the smallest needs" in text


@pytest.mark.slow
async def test_a_failing_worker_is_told_by_its_kind(board: Any, server: Any) -> None:
    """The worker's words about the data stay here."""
    board.worker_flags = ("--fail", "4")

    with pytest.raises(ClientError):
        await board.join()

    ((status, text),) = endings(server)
    assert status == ExitCode.DATA and "fake worker" not in text


async def test_a_bug_is_told_as_one(board: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is, the page says that the client is at fault, not the network."""

    def bug(*_: Any) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("edge_client.agent.join.read_calibration", bug)

    with pytest.raises(ZeroDivisionError):
        await board.join()

    ((status, text),) = endings(server)
    assert status == ExitCode.INTERNAL and "ZeroDivisionError" in text and "ada" not in text


@pytest.mark.slow
async def test_a_board_that_is_stopped_says_so_and_one_that_finished_says_nothing(board: Any, server: Any) -> None:
    """SIGTERM and Ctrl-C cancel the client: the page shows that it was meant. The end of the run needs no report."""
    waiting = asyncio.Event()

    async def wait(_: Any) -> None:
        waiting.set()
        await asyncio.sleep(3600)

    server.faults["GET /v1/work"] = [wait]
    async with board.client() as client:
        life = asyncio.ensure_future(client.run_to_end())
        await waiting.wait()
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
    assert endings(server) == [(0.0, STOPPED)]

    await board.join()

    assert server.state == "finished" and len(endings(server)) == 1


async def test_a_board_that_was_never_taken_in_has_nobody_to_tell(board: Any, server: Any) -> None:
    """No request leaves for an enrolment that failed."""
    with pytest.raises(ClientError):
        await board.join(token="wrong")

    assert not [line for line in server.requests if "reports" in line]


async def test_a_server_that_does_not_answer_holds_nobody_up(board: Any, server: Any) -> None:
    """A few tries; the error is still the board's own."""
    board.memory_bytes = 100 << 20
    tries: list[str] = []

    async def drop(request: Any) -> None:
        tries.append(request.path)
        request.transport.abort()

    async def lengths(request: Any) -> None:
        """The first report says how long the board's texts are, and is answered."""
        server.faults["POST /v1/reports"] += [drop] * 99

    server.faults["POST /v1/reports"] = [lengths]

    with pytest.raises(NoPlanError):
        await board.join()

    assert 1 < len(tries) < 10


async def test_a_board_that_fails_before_it_connects_tells_the_server_it_belongs_to(
    board: Any, server: Any, tmp_path: Path
) -> None:
    """Text that became unusable between two starts ends the second before any request: the farewell is its only one.
    Where another client runs on the folder, or nobody has enrolled, nothing is sent."""
    error = DataError(SECRET)
    await say_farewell_from(tmp_path / "nobody", error)
    async with board.client() as client:
        await client.enrol()
        await say_farewell_from(board.folder, error)
    assert endings(server) == []

    await say_farewell_from(board.folder, error)

    assert [status for status, _ in endings(server)] == [ExitCode.DATA]
    assert not StateFolder(board.folder).is_locked()


def test_a_report_of_an_end_is_a_message() -> None:
    """The kind is part of the protocol."""
    assert Report(kind="ended", values={"exit_status": 5.0}).kind == "ended"
