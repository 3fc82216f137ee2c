"""Faults between board and server: each one happens, and nothing is lost or sent twice."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edge_client.errors import LockedError, RefusedError
from edge_client.network.errors import GoneError, Unavailable
from edge_client.network.retry import Backoff
from edge_client.network.transfer import download, upload
from edge_client.network.transport import Transport
from edge_client.state.folder import StateFolder
from tests.fakes.server import refusal


async def drop(request: web.Request) -> None:
    """The connection ends before an answer."""
    assert request.transport is not None
    request.transport.abort()


async def busy(_: web.Request) -> web.Response:
    return web.Response(status=503, headers={"Retry-After": "7"})


async def throttled(_: web.Request) -> web.Response:
    """The answer of a server to one call too many."""
    return refusal(429, "busy", "too many calls at once", {"Retry-After": "9"})


def assert_once(server: Any) -> None:
    """Every round was committed, and only once."""
    assert [round_id for round_id, _ in server.commits] == [1, 2]
    assert server.state == "finished"


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "GET /v1/run",
        "GET /v1/work",
        "GET /v1/adapters/",
        "PATCH /v1/uploads/",
        "GET /v1/uploads/",
        "POST /v1/rep",
    ],
)
@pytest.mark.parametrize("fault", [drop, busy])
async def test_every_call_survives_a_lost_connection_and_a_busy_server(
    board: Any, server: Any, point: str, fault: Any
) -> None:
    """Whichever call is hit, twice in a row, the run ends as if nothing had been."""
    server.faults[point] = [fault, fault]

    await board.join()

    assert len(server.fired) == 2
    assert_once(server)


async def test_retry_after_is_honoured(board: Any, server: Any) -> None:
    """The pause is at least what the server asked for."""
    server.faults["GET /v1/run"] = [busy]

    await board.join()

    assert any(7 <= pause_s < 7.6 for pause_s in board.slept_s)


@pytest.mark.parametrize("point", ["GET /v1/work", "GET /v1/adapters/", "PATCH /v1/uploads/"])
async def test_a_server_that_asks_for_patience_gets_it(board: Any, server: Any, point: str) -> None:
    """429 on any call: the board waits as long as it is told, says so, and loses nothing."""
    server.faults[point] = [throttled, throttled]

    await board.join()

    assert len(server.fired) == 2 and sum(pause_s >= 9 for pause_s in board.slept_s) == 2
    assert_once(server)


async def test_a_first_enrolment_waits_as_long_as_it_is_told(board: Any, server: Any) -> None:
    """A server that asks for patience is there: no reason to send a person away after three tries."""
    server.faults["POST /v1/devices"] = [throttled] * 8

    await board.join()

    assert len(server.fired) == 8 and sum(9 <= pause_s < 9.6 for pause_s in board.slept_s) == 8
    assert_once(server)


@pytest.mark.slow
async def test_an_answer_lost_after_the_commit_is_not_a_second_update(board: Any, server: Any) -> None:
    """The server took the update in, its receipt got lost: the same digest gets the same receipt."""

    async def commit_then_drop(request: web.Request) -> None:
        await server.upload(request)
        await drop(request)

    server.faults["PATCH /v1/uploads/1"] = [commit_then_drop]

    await board.join()

    assert server.fired == ["PATCH /v1/uploads/1"]
    assert_once(server)
    assert board.events("finished")[0]["rounds_done"] == 2


async def test_an_upload_that_broke_goes_on_where_the_server_is(server: Any, tmp_path: Path) -> None:
    """What has arrived is not sent again."""
    data = bytes(range(256)) * 4096
    source = tmp_path / "update"
    source.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    offsets = []

    async def take_half(request: web.Request) -> None:
        server.parts[digest] = bytearray(await request.content.readexactly(len(data) // 2))
        await drop(request)

    async def take_rest(request: web.Request) -> web.Response:
        offsets.append(int(request.headers["Upload-Offset"]))
        server.parts[digest] += await request.read()
        return web.Response(status=410)

    server.faults["PATCH /v1/uploads/1"] = [take_half, take_rest]
    server.devices["x"] = "credential-1"

    async with Transport(server.url, credential="credential-1") as transport:
        with pytest.raises(GoneError):
            await upload(transport, "/v1/uploads/1", source, backoff=quick())

    assert offsets == [len(data) // 2]
    assert bytes(server.parts[digest]) == data


def quick(attempts: int | None = 5) -> Backoff:
    async def sleep(_: float) -> None:
        return None

    return Backoff(attempts=attempts, sleep=sleep)


FILE = "/v1/base/model.safetensors"


async def fetch(server: Any, target: Path, attempts: int | None = 5) -> Transport:
    server.devices["x"] = "credential-1"
    async with Transport(server.url, credential="credential-1") as transport:
        await download(transport, FILE, target, backoff=quick(attempts))
    return transport


async def test_a_truncated_download_is_completed_by_range(server: Any, tmp_path: Path) -> None:
    """Only what is missing is fetched, and the whole has the promised digest."""
    whole = (server.base / "model.safetensors").read_bytes()
    ranges = []

    async def truncate(request: web.Request) -> web.StreamResponse:
        etag = f'"{hashlib.sha256(whole).hexdigest()}"'
        response = web.StreamResponse(headers={"ETag": etag, "Content-Length": str(len(whole))})
        await response.prepare(request)
        await response.write(whole[:300_000])
        await drop(request)
        return response

    async def look(request: web.Request) -> None:
        ranges.append(request.headers.get("Range"))

    server.faults[f"GET {FILE}"] = [truncate, look]

    await fetch(server, tmp_path / "model")

    assert (tmp_path / "model").read_bytes() == whole
    assert ranges[0] is not None
    assert 0 < int(ranges[0].removeprefix("bytes=").removesuffix("-")) <= 300_000
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "no part is left behind"


async def test_a_download_goes_on_in_the_next_process(server: Any, tmp_path: Path) -> None:
    """A part that a killed client left behind is used."""
    whole = (server.base / "model.safetensors").read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    (tmp_path / f"model.{digest}.part").write_bytes(whole[:500_000])

    transport = await fetch(server, tmp_path / "model")

    assert (tmp_path / "model").read_bytes() == whole
    assert transport.traffic.down_bytes == len(whole) - 500_000


async def test_a_part_that_was_complete_is_only_checked(server: Any, tmp_path: Path) -> None:
    """Killed between the last byte and the rename."""
    whole = (server.base / "model.safetensors").read_bytes()
    (tmp_path / f"model.{hashlib.sha256(whole).hexdigest()}.part").write_bytes(whole)

    transport = await fetch(server, tmp_path / "model")

    assert (tmp_path / "model").read_bytes() == whole
    assert transport.traffic.down_bytes < 100, "the server's refusal, and no byte of the file"


async def test_a_corrupted_download_never_gets_its_name(server: Any, tmp_path: Path) -> None:
    """Flipped bits are noticed by the digest, and the file is fetched again."""
    whole = (server.base / "model.safetensors").read_bytes()

    async def corrupt(_: web.Request) -> web.Response:
        etag = f'"{hashlib.sha256(whole).hexdigest()}"'
        return web.Response(body=whole[:-1] + b"?", headers={"ETag": etag})

    server.faults[f"GET {FILE}"] = [corrupt]

    await fetch(server, tmp_path / "model")

    assert server.fired == [f"GET {FILE}"]
    assert (tmp_path / "model").read_bytes() == whole


async def test_a_download_that_is_always_damaged_ends_with_a_sentence(server: Any, tmp_path: Path) -> None:
    """A bounded budget is spent, and no file appears."""

    async def corrupt(_: web.Request) -> web.Response:
        return web.Response(body=b"other bytes", headers={"ETag": f'"{"0" * 64}"'})

    server.faults[f"GET {FILE}"] = [corrupt] * 3

    with pytest.raises(Unavailable, match="damaged"):
        await fetch(server, tmp_path / "model", attempts=3)

    assert not (tmp_path / "model").exists()


async def test_another_protocol_version_is_refused_with_a_sentence(board: Any, server: Any) -> None:
    """A server of version 9 is named as such, with what to do."""

    async def other_version(_: web.Request) -> web.Response:
        return web.Response(body=b"?", headers={"Content-Type": "application/vnd.braid+msgpack; v=9"})

    server.faults["POST /v1/devices"] = [other_version]

    with pytest.raises(RefusedError, match="version 9") as caught:
        await board.join()

    assert "update" in caught.value.hint


async def test_something_else_on_that_port_is_not_taken_for_a_server(board: Any, server: Any) -> None:
    """A web page, a captive portal: told as what it is, and an enrolled board waits for it to go away."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>log in</html>", content_type="text/html")

    server.faults["POST /v1/devices"] = [page] * 3

    with pytest.raises(Unavailable, match="not as a Braid aggregator"):
        await board.join()


@pytest.mark.slow
async def test_a_client_killed_after_training_only_sends_what_is_on_disk(board: Any, server: Any) -> None:
    """The finished update of this round is uploaded again without training."""

    async def power_cut(_: web.Request) -> web.Response:
        raise web.HTTPUnauthorized  # ends this client; the state stays as a kill would leave it

    server.faults["PATCH /v1/uploads/1"] = [power_cut]
    log = board.folder.parent / "jobs"
    board.worker_flags = ("--log", str(log))
    with pytest.raises(Exception, match=r"not as a Braid|401"):
        await first_attempt_only(board)

    await board.join()

    assert_once(server)
    trained = [line for line in log.read_text().splitlines() if line.startswith("train 1 ")]
    assert len(trained) == 1
    evaluated = [report.version for report in server.reports if report.kind == "evaluation"]
    assert evaluated == [1, 1, 2, 3], "its numbers were kept beside it, and are told before it, so twice here"


async def first_attempt_only(board: Any) -> None:
    """A client that ends at the first failed call."""
    patient = board.backoff

    def impatient(**arguments: Any) -> Backoff:
        return patient(**{**arguments, "attempts": 1})

    board.backoff = impatient
    try:
        await board.join()
    finally:
        board.backoff = patient


def test_two_clients_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second is told which process has it; after the first has gone it may go on."""
    first, second = StateFolder(tmp_path / "s"), StateFolder(tmp_path / "s")
    first.lock()
    try:
        with pytest.raises(LockedError, match=r"process [0-9]+"):
            second.lock()
    finally:
        first.unlock()

    second.lock()
    second.unlock()
    shutil.rmtree(tmp_path / "s")
