"""An enrolled board goes with its server to another address: the same device, no token, and no secret for strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from edge_client.cli.main import run
from edge_client.errors import ConfigError, ExitCode
from edge_client.network.errors import OtherCertificateError, Unavailable, UntrustedError
from edge_client.state.folder import Identity, StateFolder
from tests.edge_client.network.test_transport import self_signed
from tests.fakes.server import FakeServer


@asynccontextmanager
async def at_another_address(server: FakeServer, context: Any = None) -> AsyncIterator[str]:
    """The same server, listening on a port of its own as well; its address."""
    running = TestServer(server.app(), scheme="https" if context else "http")
    await running.start_server(ssl=context)
    try:
        yield str(running.make_url("")).rstrip("/")
    finally:
        await running.close()


async def enrolled(board: Any, **settings: Any) -> Identity:
    """The identity of the board once it has enrolled."""
    async with board.client(**settings) as client:
        await client.enrol()
    return kept(board)


def kept(board: Any) -> Identity:
    identity = StateFolder(board.folder).read_identity()
    assert identity is not None
    return identity


@pytest.fixture
def seen(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Path and credential of every request."""
    requests: list[tuple[str, str]] = []
    original = server._middleware

    @web.middleware
    async def look(request: web.Request, handler: Any) -> web.StreamResponse:
        requests.append((request.path, request.headers.get("Authorization", "")))
        return await original(request, handler)  # type: ignore[no-any-return]

    monkeypatch.setattr(server, "_middleware", look)
    return requests


@pytest.mark.slow
async def test_a_board_follows_its_server_without_a_token(
    board: Any, server: FakeServer, seen: list[tuple[str, str]]
) -> None:
    """Same device, new address on disk, one enrolment; the credential goes out only after the proof came."""
    before = await enrolled(board)

    async with at_another_address(server) as url:
        await board.join(server=url, token="")

    assert kept(board) == msgspec.structs.replace(before, server=url)
    assert server.requests.count("POST /v1/devices") == 1 and server.state == "finished"
    assert seen[0] == ("/v1/proofs", "") and seen[1] == ("/v1/run", f"Bearer {before.credential}")
    assert any(f"is at {url} now" in event["message"] for event in board.events("notice"))


async def test_a_stranger_gets_nothing(board: Any, base_folder: Path) -> None:
    """Another aggregator at the new address, even one that has a device of this name: refused, nothing changed, and no
    credential was sent there. A proof of an earlier day is no proof."""
    before = await enrolled(board)
    stranger = FakeServer(base_folder, devices={"1" * 32: "credential-of-others"}, ids={before.device: "1" * 32})
    secrets: list[str] = []

    async def look(request: web.Request) -> None:
        secrets.append(request.headers.get("Authorization", ""))

    stranger.faults[""] = [look] * 9
    async with at_another_address(stranger) as url:
        with pytest.raises(ConfigError, match="belongs to a device of") as caught:
            await board.join(server=url)

    assert stranger.requests == ["POST /v1/proofs"] and secrets == [""]
    assert "--state" in caught.value.hint and kept(board) == before


async def test_a_proof_is_good_for_one_question(board: Any, server: FakeServer) -> None:
    """Whoever recorded an answer of the true server cannot show it again."""
    before = await enrolled(board)
    answers: list[bytes] = []

    async def record(request: web.Request) -> web.StreamResponse:
        answer = await server.prove(request)
        answers.append(bytes(answer.body))  # type: ignore[arg-type]
        return answer

    async def replay(_: web.Request) -> web.StreamResponse:
        return web.Response(body=answers[0], headers={"Content-Type": "application/vnd.braid+msgpack; v=1"})

    server.faults["POST /v1/proofs"] = [record, replay]
    async with at_another_address(server) as first, at_another_address(server) as second:
        await enrolled(board, server=first, token="")
        with pytest.raises(ConfigError, match="does not know this device"):
            await board.join(server=second, token="")

    assert kept(board) == msgspec.structs.replace(before, server=kept(board).server) and len(answers) == 1


async def test_a_page_that_is_no_aggregator_is_not_followed(board: Any) -> None:
    """A web server at the new address: the sentence says what is there, and the board keeps its server."""
    before = await enrolled(board)
    app = web.Application()
    running = TestServer(app)
    await running.start_server()
    try:
        with pytest.raises(Unavailable, match=r"belongs to a device of .*not as a Braid aggregator"):
            await board.join(server=str(running.make_url("")).rstrip("/"), token="")
    finally:
        await running.close()

    assert kept(board) == before


@pytest.mark.slow
async def test_nobody_at_the_new_address_is_said_and_changes_nothing(board: Any, server: FakeServer) -> None:
    """Without --wait a person is told after a few tries; then the old address works as before."""
    before = await enrolled(board)

    with pytest.raises(Unavailable, match=r"belongs to a device of .* cannot be reached") as caught:
        await board.join(server="http://127.0.0.1:9", token="")

    assert caught.value.exit_code == ExitCode.UNREACHABLE and kept(board) == before
    await board.join(token="")
    assert server.state == "finished"


async def test_the_pinned_certificate_goes_with_the_server(board: Any, server: FakeServer, tmp_path: Path) -> None:
    """Another port, the same certificate: nothing but the address changes."""
    context, fingerprint = self_signed(tmp_path)
    async with at_another_address(server, context) as first, at_another_address(server, context) as second:
        before = await enrolled(board, server=first, fingerprint=fingerprint)

        after = await enrolled(board, server=second, token="")

    assert after == msgspec.structs.replace(before, server=second) and after.fingerprint == fingerprint


async def test_another_certificate_needs_its_fingerprint(
    board: Any, server: FakeServer, seen: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Signed by nobody, and not proven by the server to be its own: refused, and no credential is sent, until the new
    fingerprint is given."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, old_pin = self_signed(tmp_path / "old")
    new, new_pin = self_signed(tmp_path / "new")
    async with at_another_address(server, old) as first, at_another_address(server, new) as second:
        await enrolled(board, server=first, fingerprint=old_pin)
        with pytest.raises(OtherCertificateError, match=new_pin):
            await board.join(server=second, token="")
        assert seen[-1] == ("/v1/proofs", "")

        spelled = "SHA256 Fingerprint=" + ":".join(new_pin[i : i + 2].upper() for i in range(0, 64, 2))
        after = await enrolled(board, server=second, token="", fingerprint=spelled)

    assert (after.server, after.fingerprint, len(server.devices)) == (second, spelled, 1)


async def test_a_new_fingerprint_at_the_same_address_is_proven_as_well(
    board: Any, server: FakeServer, tmp_path: Path
) -> None:
    """A mistyped --fingerprint does not take the place of the right one."""
    context, fingerprint = self_signed(tmp_path)
    async with at_another_address(server, context) as url:
        before = await enrolled(board, server=url, fingerprint=fingerprint)
        with pytest.raises(UntrustedError):
            await board.join(server=url, token="", fingerprint="ab" * 32)
        assert kept(board) == before

        await enrolled(
            board, server=url, token="", fingerprint=":".join(fingerprint[i : i + 2] for i in range(0, 64, 2))
        )

    assert kept(board) == before, "another spelling of the same is no change"


@pytest.mark.slow
async def test_a_server_set_up_anew_is_joined_by_its_fingerprint_and_a_token(
    board: Any, server: FakeServer, base_folder: Path, tmp_path: Path
) -> None:
    """Its certificate is another one, and it knows nobody: with either alone the board refuses; with both it enrols,
    under the same install id, and the credential of before is shown to nobody."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, old_pin = self_signed(tmp_path / "old")
    new, new_pin = self_signed(tmp_path / "new")
    anew, shown = FakeServer(base_folder, run_id="run-2"), list[tuple[str, str]]()

    async def look(request: web.Request) -> None:
        shown.append((request.path, request.headers.get("Authorization", "")))

    anew.faults[""] = [look] * 99
    async with at_another_address(server, old) as first, at_another_address(anew, new) as second:
        before = await enrolled(board, server=first, fingerprint=old_pin)
        with pytest.raises(OtherCertificateError) as caught:
            await board.join(server=second)
        assert "--fingerprint, and if the server was set up anew a new --token" in caught.value.hint
        with pytest.raises(ConfigError) as refused:
            await board.join(server=second, fingerprint=new_pin, token="")
        assert "give both --fingerprint and a new --token" in refused.value.hint and kept(board) == before

        await board.join(server=second, fingerprint=new_pin)

    after = kept(board)
    assert anew.state == "finished" and list(anew.devices) == [before.install_id] == [after.install_id]
    assert (after.server, after.fingerprint) == (second, new_pin)
    until_enrolled = shown[: 1 + [path for path, _ in shown].index("/v1/devices")]
    assert len(until_enrolled) > 2 and not any(credential for _, credential in until_enrolled)
    assert server.requests.count("POST /v1/devices") == 1


@pytest.mark.slow
async def test_a_server_that_lost_the_credential_takes_the_board_back_with_a_token(
    board: Any, server: FakeServer
) -> None:
    """Restored from an old backup, say: without a token it keeps trying and says what to do; stopped and started with
    one, it is the same device."""
    before = await enrolled(board)
    install_id, _ = server.devices.popitem()
    server.devices[install_id] = "another one"

    life, asked = asyncio.ensure_future(board.join(token="")), asyncio.Event()

    async def ask(_: web.Request) -> None:
        if board.events("offline"):
            asked.set()

    server.faults["GET /v1/run"] = [ask] * 99
    await asked.wait()
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    assert life.cancelled() and "start this board again with it" in board.events("offline")[0]["hint"]
    await board.join()

    after = kept(board)
    assert (after.device, after.install_id) == (before.device, before.install_id)
    assert len(server.devices) == 1 and server.state == "finished"


# --- leaving -------------------------------------------------------------------------------------------------------


async def test_a_board_that_left_joins_again_as_the_same_device(
    board: Any, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The install id outlives leaving; --new-device forgets it, and so does nothing else."""
    before = await enrolled(board)

    code = await asyncio.to_thread(run, ["leave", "--yes", "--state", str(board.folder)])

    assert code == ExitCode.OK and "DELETE /v1/device" in server.requests and not server.devices
    again = await enrolled(board)
    assert (again.install_id, again.device) == (before.install_id, before.device)
    await asyncio.to_thread(run, ["leave", "--yes", "--new-device", "--state", str(board.folder)])
    assert (await enrolled(board)).install_id != before.install_id


async def test_a_board_leaves_a_server_that_is_away(board: Any, server: FakeServer, capsys: Any) -> None:
    """It says that nobody was told, and how to shut the device out there."""
    identity = await enrolled(board)
    folder = StateFolder(board.folder)
    folder.write_identity(msgspec.structs.replace(identity, server="http://127.0.0.1:9"))

    code = await asyncio.to_thread(run, ["leave", "--yes", "--state", str(board.folder)])

    said = capsys.readouterr().out
    assert code == ExitCode.OK and "could not be told" in said
    assert f"aggregator device revoke DIR {identity.device}" in said
    assert folder.read_identity() is None
