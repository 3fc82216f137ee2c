"""A server that does not know its board any more: the board stays, and goes on once it is known, or let in, again."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from edge_client.errors import ExitCode, RevokedError
from edge_client.network.retry import MAX_DELAY_S
from edge_client.state.folder import StateFolder
from edge_client.state.known_run import read_known_run
from tests.fakes.server import FakeServer, refusal


def wiped(server: FakeServer) -> None:
    """Set up anew at the same address: another run from its start, and no board is known."""
    server.devices.clear()
    server.ids.clear()
    server.next_credentials.clear()
    server.commits, server.profiles, server.parts, server.evaluated = [], 0, {}, set()
    server.run_id, server.state, server.version, server.round = "run-2", "profiling", 0, 0


@pytest.fixture
def wipe(server: FakeServer) -> None:
    """The server is wiped while the update of its first round arrives."""

    async def fault(_: web.Request) -> web.Response:
        wiped(server)
        return refusal(401, "unauthorised", "this credential is not known here")

    server.faults["PATCH /v1/uploads/1"] = [fault]


@pytest.mark.slow
@pytest.mark.usefixtures("wipe")
async def test_a_board_with_a_token_that_is_valid_enrols_again(board: Any, server: FakeServer) -> None:
    """In the middle of a round: it does the whole of the new run, as a device of the same install id, and says so."""
    await board.join()

    assert server.fired == ["PATCH /v1/uploads/1"]
    assert server.requests.count("POST /v1/devices") == 2
    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]
    identity, known = StateFolder(board.folder).read_identity(), read_known_run(StateFolder(board.folder))
    assert identity is not None and list(server.devices) == [identity.install_id]
    assert known is not None and known.run_id == "run-2"
    assert any("takes part in run-2 from now on" in event["message"] for event in board.events("notice"))


@pytest.mark.usefixtures("wipe")
async def test_a_board_whose_token_is_used_up_keeps_trying(board: Any, server: FakeServer) -> None:
    """Told once, with what to do; the pauses grow to a minute; and a revocation, and nothing else, ends it."""

    async def used_up(_: web.Request) -> web.Response:
        return refusal(401, "unauthorised", "this join token is used up")

    async def revoked(_: web.Request) -> web.Response:
        return refusal(403, "revoked", "device d-1 was revoked")

    async def first(_: web.Request) -> None:
        """The one that the token is good for."""

    server.faults["POST /v1/devices"] = [first, *[used_up] * 12, revoked]

    with pytest.raises(RevokedError) as caught:
        await board.join()

    assert caught.value.exit_code is ExitCode.REVOKED and server.faults["POST /v1/devices"] == []
    (told,) = board.events("offline")
    assert "not known" in told["message"] and "used up" in told["message"]
    assert "aggregator token create DIR" in told["hint"] and "BRAID_TOKEN" in told["hint"]
    assert len([delay_s for delay_s in board.slept_s if delay_s]) >= 12 and max(board.slept_s) <= MAX_DELAY_S


@pytest.mark.slow
async def test_a_board_without_a_token_goes_on_when_its_server_is_back(board: Any, server: FakeServer) -> None:
    """The wiped server gets its backup back: no token, no new enrolment, and what was trained is sent once."""
    async with board.client() as client:
        await client.enrol()
    known, tries = dict(server.devices), 0

    async def lose(_: web.Request) -> None:
        server.devices.clear()

    async def come_back(_: web.Request) -> None:
        nonlocal tries
        tries += not server.devices
        if tries == 5:
            server.devices.update(known)

    server.faults["PATCH /v1/uploads/1"] = [lose]
    server.faults["GET /v1/run"] = [come_back] * 99
    log = board.folder.parent / "jobs"
    board.worker_flags = ("--log", str(log))

    await board.join(token="")

    assert tries == 5 and server.requests.count("POST /v1/devices") == 1
    assert server.state == "finished" and [round_id for round_id, _ in server.commits] == [1, 2]
    assert len([line for line in log.read_text().splitlines() if line.startswith("train 1 ")]) == 1
    assert len(board.events("offline")) == len(board.events("online")) == 1


async def test_a_server_that_is_back_and_knows_nobody_is_told_as_that(board: Any, server: FakeServer) -> None:
    """First away, then there without its boards: both are told."""
    async with board.client() as client:
        await client.enrol()
    known = dict(server.devices)

    async def away(_: web.Request) -> web.Response:
        server.devices.clear()
        return web.Response(status=503)

    async def pass_by(_: web.Request) -> None:
        """Another look at the server that knows nobody."""

    async def come_back(_: web.Request) -> None:
        server.devices.update(known)

    server.faults["GET /v1/run"] = [away, pass_by, pass_by, come_back]

    await board.join(token="")

    first, second = (event["message"] for event in board.events("offline"))
    assert "503" in first and "not known" in second and server.state == "finished"
