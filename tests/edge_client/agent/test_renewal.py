"""A client whose credential is renewed, whose server gets a new certificate, or whose identity somebody has copied."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from edge_client.cli.main import run
from edge_client.errors import ExitCode
from edge_client.network.errors import OtherCertificateError, UnknownCredentialError
from edge_client.state.folder import Identity, StateFolder
from tests.edge_client.network.test_transport import self_signed
from tests.fakes.server import FakeServer, refusal
from wire.codec import CONTENT_TYPE
from wire.routes import SESSION


def kept(board: Any) -> Identity:
    identity = StateFolder(board.folder).read_identity()
    assert identity is not None
    return identity


def certificates(folder: Path) -> dict[str, tuple[ssl.SSLContext, str]]:
    """An old and a new certificate of one server, with their fingerprints."""
    for name in ("old", "new"):
        (folder / name).mkdir()
    return {name: self_signed(folder / name) for name in ("old", "new")}


@asynccontextmanager
async def over_tls(app: web.Application, context: ssl.SSLContext, port: int = 0) -> AsyncIterator[TestServer]:
    """An application that listens over TLS."""
    running = TestServer(app, scheme="https", port=port)
    await running.start_server(ssl=context)
    try:
        yield running
    finally:
        await running.close()


def url_of(running: TestServer) -> str:
    return str(running.make_url("")).rstrip("/")


# --- credentials ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_credential_is_renewed_while_the_board_works(board: Any, server: FakeServer) -> None:
    """One enrolment, one renewal, no outage; the next start needs nothing but the folder."""
    server.renew = True

    await board.join()

    identity = kept(board)
    assert server.state == "finished" and server.requests.count("POST /v1/devices") == 1
    assert server.requests.count("PUT /v1/credential") == 1 and not board.events("offline")
    assert identity.former_credential == "credential-0" and not identity.next_credential
    assert list(server.devices.values()) == [identity.credential] != ["credential-0"]
    await board.join(token="")


async def test_a_report_that_was_on_its_way_is_sent_again(board: Any, server: FakeServer) -> None:
    """The credential is renewed while a call waits for its answer: 401 there is no end."""
    async with board.client() as client:
        await client.enrol()
        api = client._api

        async def renew_meanwhile(request: web.Request) -> web.StreamResponse:
            install_id = next(iter(server.devices))
            server.devices[install_id] = api.transport.credential = "renewed"
            return refusal(401, "unauthorised", "this credential was renewed")

        server.faults["GET /v1/base"] = [renew_meanwhile]

        assert (await api.base_files()).files

    assert server.fired == ["GET /v1/base"]


async def test_a_command_beside_the_client_survives_a_renewal(board: Any, server: FakeServer) -> None:
    """It has begun under the credential of before, and finds the new one in the folder, which holds the old one too."""
    async with board.client() as beside:
        await beside.enrol()
        server.renew = True
        folder = StateFolder(board.folder)
        known = kept(board)
        folder.write_identity(known.with_next("new", known.credential).renewed())
        server.devices[known.install_id] = "new"

        assert (await beside._api.run()).run_id == "run-1"
        assert beside._api.transport.credential == "new"


async def test_credentials_that_are_all_refused_are_refused(board: Any, server: FakeServer) -> None:
    """Each is tried once, and then again at the next call: a server that is back may know one of them."""
    async with board.client() as client:
        await client.enrol()
        known = kept(board)
        StateFolder(board.folder).write_identity(known.with_next("next", known.credential))
        api, install_id = client._api, known.install_id
        server.devices[install_id] = "of nobody"
        for _ in range(2):
            server.requests.clear()
            with pytest.raises(UnknownCredentialError):
                await api.run()
            assert server.requests == ["GET /v1/run"] * 2

        server.devices[install_id] = "next"
        assert (await api.run()).run_id == "run-1"


async def test_leaving_works_under_whichever_credential_the_server_knows(board: Any, server: FakeServer) -> None:
    """Killed between two steps of a renewal, or with a backup restored: the server is told all the same."""
    async with board.client() as client:
        await client.enrol()
    known = kept(board)
    for changes in (
        {"credential": "lost", "next_credential": known.credential},
        {"credential": "lost", "former_credential": known.credential},
    ):
        folder = StateFolder(board.folder)
        folder.write_identity(msgspec.structs.replace(known, **changes))
        server.devices = {known.install_id: known.credential}

        code = await asyncio.to_thread(run, ["leave", "--yes", "--state", str(board.folder)])

        assert code == ExitCode.OK and not server.devices


# --- certificates --------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_board_follows_a_certificate_that_is_renewed_under_it(
    board: Any, server: FakeServer, tmp_path: Path
) -> None:
    """In the middle of the run: asked without the credential, proven, pinned, told; an old pin in edge-client.toml does
    not lead back."""
    made = certificates(tmp_path)
    context, old = made["old"]
    async with over_tls(server.app(), context) as running:

        async def renew(_: web.Request) -> None:
            context.load_cert_chain(tmp_path / "new" / "server.pem")
            server.certificate = made["new"][1]
            assert running.runner is not None and running.runner.server is not None
            for connection in running.runner.server.connections:  # those that are kept alive have seen the old one
                if connection.transport is not None:
                    connection.transport.abort()

        server.faults["PATCH /v1/uploads/"] = [renew]
        await board.join(server=url_of(running), fingerprint=old)

        assert server.fired and server.state == "finished"
        assert (kept(board).fingerprint, kept(board).given_fingerprint) == (made["new"][1], old)
        assert any("has proven it" in event["message"] for event in board.events("notice"))
        asked = server.requests.count("POST /v1/proofs")
        await board.join(server=url_of(running), fingerprint=old, token="")
        assert server.requests.count("POST /v1/proofs") == asked >= 1


async def test_a_board_that_was_off_meanwhile_follows_at_its_start(
    board: Any, server: FakeServer, tmp_path: Path
) -> None:
    """Also where the server has another address by then, and where the board only leaves."""
    made = certificates(tmp_path)
    (old_context, old), (new_context, new) = made["old"], made["new"]
    async with over_tls(server.app(), old_context) as running:
        async with board.client(server=url_of(running), fingerprint=old) as client:
            await client.enrol()
        port = running.port
    server.certificate = new

    async with over_tls(server.app(), new_context, port) as running:
        async with board.client(server="", token="") as client:
            await client.enrol()
        assert kept(board).fingerprint == new
    StateFolder(board.folder).write_identity(msgspec.structs.replace(kept(board), fingerprint=old))
    async with over_tls(server.app(), new_context) as elsewhere:
        async with board.client(server=url_of(elsewhere), fingerprint=old, token="") as client:
            await client.enrol()
        assert (kept(board).server, kept(board).fingerprint) == (url_of(elsewhere), new)
        StateFolder(board.folder).write_identity(msgspec.structs.replace(kept(board), fingerprint=old))
        assert await asyncio.to_thread(run, ["leave", "--yes", "--state", str(board.folder)]) == ExitCode.OK

    assert "DELETE /v1/device" in server.requests and not server.devices


@pytest.mark.parametrize("plain", [False, True])
async def test_who_relays_the_question_is_not_followed(
    board: Any, server: FakeServer, tmp_path: Path, plain: bool
) -> None:
    """Between board and server, with a certificate of its own: the server's proof is of another one, or of none. It
    sees a nonce and a device id, and never the credential; the pin stays."""
    made = certificates(tmp_path)
    (context, old), (their_context, theirs) = made["old"], made["new"]
    server.certificate = "" if plain else old
    secrets: list[str] = []

    async def relay(request: web.Request) -> web.Response:
        secrets.append(request.headers.get("Authorization", ""))
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                server.url + request.path, data=await request.read(), headers={"Content-Type": CONTENT_TYPE}
            ) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", relay)
    async with over_tls(server.app(), context) as running:
        async with board.client(server=url_of(running), fingerprint=old) as client:
            await client.enrol()
        port, before = running.port, kept(board)

    async with over_tls(app, their_context, port):
        async with board.client(token="", server="", fingerprint="") as client:
            client._api.transport.keeper = client._renewal  # as it has once it is at work
            with pytest.raises(OtherCertificateError, match=theirs):
                await client._api.leave()
        async with board.client(token="", server=f"https://localhost:{port}", fingerprint=old) as client:
            with pytest.raises(OtherCertificateError, match=theirs):
                await client.enrol()

    assert len(secrets) == 2 and set(secrets) == {""} and kept(board) == before


# --- copies --------------------------------------------------------------------------------------------------------


async def test_a_copy_waits_until_the_other_client_has_stopped(board: Any, server: FakeServer) -> None:
    """Refused and told, not ended: it goes on by itself once it is served."""
    says = "another client is at work as d-1, with a copy of this board's identity"

    async def refuse(_: web.Request) -> web.StreamResponse:
        return refusal(409, "copied", says, {"Retry-After": "60"})

    server.faults["GET /v1/work"] = [refuse, refuse]
    server.faults["PATCH /v1/uploads/1"] = [refuse]

    await board.join()

    assert len(server.fired) == 3 and server.state == "finished"
    assert [says in event["message"] for event in board.events("offline")] == [True, True]
    assert sum(delay_s >= 60 for delay_s in board.slept_s) == 3


async def test_the_one_that_is_served_is_told_once(board: Any, server: FakeServer) -> None:
    """In as many words as the server says, once, without what could move a cursor."""
    server.notice = "another client uses a copy of this board's identity\x1b[2J"

    await board.join()

    assert [event["message"] for event in board.events("notice") if "a copy of" in event["message"]] == [
        "another client uses a copy of this board's identity?[2J"
    ]


@pytest.mark.slow
async def test_each_start_of_a_client_is_a_session(board: Any, server: FakeServer) -> None:
    """The same in all of its calls, another one the next time; a command beside it has none."""
    sessions: list[str] = []

    async def look(request: web.Request) -> None:
        sessions.append(request.headers.get(SESSION, ""))

    server.faults[""] = [look] * 99
    await board.join()
    first = set(sessions)
    sessions.clear()
    await board.join()

    assert len(first) == len(set(sessions)) == 1 and first != set(sessions)
    sessions.clear()
    await asyncio.to_thread(run, ["leave", "--yes", "--state", str(board.folder)])
    assert sessions == [""]
