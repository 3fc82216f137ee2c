"""A board that takes part in a run notices when the server's run is another one: base, weights, versions."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from edge_client.errors import BaseModelError, ClientError, ExitCode, RefusedError
from edge_client.state.folder import StateFolder
from edge_client.state.known_run import KnownRun, read_known_run, require_same_run, with_versions
from tests.fakes.runs import run_of
from tests.fakes.server import CONFIG, FakeServer
from wire.messages import Version
from wire.proof import empty_history, next_history
from wire.run import Base


def at_version(version: int, digests: dict[int, str] | None = None, **changes: Any) -> Any:
    """A run of so many versions."""
    run = run_of(CONFIG, version=version, **changes)
    history = empty_history(run.run_id, run.base.digest, run.manifest)
    for number in range(1, version + 1):
        history = next_history(history, number, (digests or {}).get(number, digest(number)))
    return run_of(CONFIG, version=version, history=history, **changes)


def digest(number: int) -> str:
    return f"{number:064x}"


def versions(first: int, last: int) -> list[Version]:
    return [Version(version=number, digest=digest(number)) for number in range(first, last + 1)]


class TestRules:
    def test_versions_that_follow_are_believed(self) -> None:
        """One or many at once, none at all, and more than the run says it has."""
        known = KnownRun.beginning(at_version(0))
        for version, since in ((0, []), (1, versions(1, 1)), (4, versions(2, 4)), (5, versions(5, 7)), (5, [])):
            known, warning = with_versions(known, at_version(version), since)
            assert not warning and known.version == version

    @pytest.mark.parametrize(
        ("run", "since", "words"),
        [
            (at_version(3, {3: "f" * 64}), versions(4, 3), "does not follow"),  # the same version, another one
            (at_version(5, {4: "f" * 64}), versions(4, 5), "does not follow"),  # the digests are not those
            (at_version(5), versions(5, 5), "does not follow"),  # one is left out
            (at_version(2), [], "went back to version 2"),
            (run_of(CONFIG, version=3), [], "does not follow"),  # it says none any more
        ],
    )
    def test_a_history_that_is_another_one_is_told_once(self, run: Any, since: list[Version], words: str) -> None:
        """And is the known one from then on: a server may have been restored."""
        known, _ = with_versions(KnownRun.beginning(at_version(0)), at_version(3), versions(1, 3))

        after, warning = with_versions(known, run, since)

        assert words in warning
        assert with_versions(after, run, [])[1] == ""

    def test_what_never_changes_must_not(self) -> None:
        """Base, manifest, run: an error that says what is another one and what to do."""
        known = KnownRun.beginning(at_version(1))
        require_same_run(known, at_version(7))
        for run, kind in (
            (at_version(1, base=Base(model="builtin", digest="a" * 64)), BaseModelError),
            (at_version(1, settings={"scope": "decoder"}), RefusedError),
            (at_version(1, run_id="other"), RefusedError),
        ):
            with pytest.raises(kind) as caught:
                require_same_run(known, run)
            assert "somebody has changed the server" in caught.value.hint


async def enrolled(board: Any) -> KnownRun:
    async with board.client() as client:
        await client.enrol()
    known = read_known_run(StateFolder(board.folder))
    assert known is not None
    return known


@pytest.mark.parametrize(
    ("swap", "status"),
    [({"base_said": "a" * 64}, ExitCode.BASE), ({"run_id": "run-2"}, ExitCode.REFUSED)],
)
async def test_a_swapped_base_or_run_ends_the_board(
    board: Any, server: FakeServer, swap: dict[str, str], status: ExitCode
) -> None:
    """Though the server would have its files: nothing is fetched, nothing is trained, the server's page hears why."""
    before = await enrolled(board)
    for name, value in swap.items():
        setattr(server, name, value)

    with pytest.raises(ClientError) as caught:
        await board.join()

    assert caught.value.exit_code == status and read_known_run(StateFolder(board.folder)) == before
    assert not any("/v1/base" in line or "/v1/adapters" in line for line in server.requests) and not server.commits
    assert [report.values["exit_status"] for report in server.reports if report.kind == "ended"] == [float(status)]


async def test_a_base_that_is_swapped_in_the_middle_is_noticed(board: Any, server: FakeServer) -> None:
    """Not only at the start: before the next round is trained."""

    async def swap(_: web.Request) -> None:
        server.base_said = "a" * 64

    server.faults["PATCH /v1/uploads/1"] = [swap]

    with pytest.raises(BaseModelError, match="base is another one now"):
        await board.join()

    assert server.fired and [round_id for round_id, _ in server.commits] == [1]


async def test_the_versions_of_a_whole_run_are_one_history(board: Any, server: FakeServer) -> None:
    """Nothing is told of an honest run, and the last value is kept; a board that was away asks for what it missed."""
    await board.join()
    known = read_known_run(StateFolder(board.folder))
    assert known is not None and (known.version, known.history) == (3, server.run().history)
    assert not any("follow" in event["message"] for event in board.events("notice"))

    server.version, server.rounds = 9, 9
    async with board.client() as client:
        await client.enrol()

    known = read_known_run(StateFolder(board.folder))
    assert known is not None and (known.version, known.history) == (9, server.run().history)
    assert [line for line in server.requests if "versions" in line][-3:] == [
        f"GET /v1/versions?after={after}" for after in (3, 5, 7)
    ]
    assert not any("follow" in event["message"] for event in board.events("notice"))


@pytest.mark.slow
async def test_a_server_that_goes_back_or_forks_is_told_and_goes_on(board: Any, server: FakeServer) -> None:
    """Restored from a backup: the board says so, to its people and on the server's page, and works on."""
    await board.join()
    server.state, server.version, server.round, server.evaluated = "training", 2, 2, set()
    server.versions, server.commits = {3: "f" * 64}, server.commits[:1]

    await board.join()

    said = [event["message"] for event in board.events("notice")]
    assert any("went back to version 2" in text and "backup" in text for text in said)
    assert any("went back" in report.text for report in server.reports if report.kind == "event")
    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]
    known = read_known_run(StateFolder(board.folder))
    assert known is not None and known.history == server.run().history


async def test_another_run_by_a_new_enrolment_is_taken_and_told(board: Any, server: FakeServer) -> None:
    """With a token a board may go to another run, at a server that was made anew."""
    await enrolled(board)
    server.devices.clear()
    server.run_id = "run-2"

    await board.join()

    assert any("takes part in run-2 from now on" in event["message"] for event in board.events("notice"))
    known = read_known_run(StateFolder(board.folder))
    assert known is not None and known.run_id == "run-2" and server.state == "finished"
