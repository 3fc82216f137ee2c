"""Bodies: nobody's is read before it is known whose it is, and none for ever."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from aggregator.http import streaming
from aggregator.http.guard.connection import Connection
from aggregator.run.setup import Opened
from aggregator.settings.base_model import BaseFile
from braid_common.base.files import file_digest
from tests.aggregator.http.guard.conftest import Door, enrolment, request
from wire.codec import CONTENT_TYPE, decode, encode
from wire.limits import MAX_CONTROL_BYTES, MAX_NAME_CHARS, MAX_STRANGERS_BYTES
from wire.messages import Enrol, Enrolled

BIG_BYTES = 64 << 20
"""More than what the sockets of both sides hold."""


@pytest.mark.parametrize("credential", ["", "Bearer wrong", "Basic d3Jvbmc="])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/reports"), ("PATCH", "/v1/uploads/1")])
async def test_a_credential_is_asked_for_before_the_body(door: Door, method: str, path: str, credential: str) -> None:
    """401 while not a byte of it has been sent, and the connection ends: the body is not read to be dropped."""
    caller = await door.call()
    headers = {"Authorization": credential} if credential else {}

    await caller.send(request(method, path, length=MAX_CONTROL_BYTES, **headers))

    answer = await caller.answer()
    assert answer.status == 401 and answer.closed and await caller.is_closed()


async def test_a_revoked_board_is_not_read(door: Door) -> None:
    credential = await door.enrol()
    door.opened.store.revoke_device(next(iter(door.opened.run.boards)).device)

    answer = await door.say(request("POST", "/v1/reports", length=100_000, Authorization=f"Bearer {credential}"))

    assert answer.status == 403 and answer.closed


@pytest.mark.parametrize("path", ["/v1/devices", "/v1/proofs"])
async def test_a_stranger_may_send_little(door: Door, path: str) -> None:
    """More is refused by its header, and where there is none once it has come; an enrolment of any names fits."""
    large = await door.say(request("POST", path, length=25 * MAX_STRANGERS_BYTES))
    caller = await door.call()
    await caller.send(request("POST", path, Transfer_Encoding="chunked"))
    await caller.send(b"1100\r\n" + bytes(0x1100) + b"\r\n")

    assert (large.status, large.refusal.code, large.closed) == (413, "too_large", True)
    assert (await caller.answer()).status == 413
    assert door.count("too_large") == 2
    longest = Enrol(
        protocol=1,
        token="x" * MAX_NAME_CHARS,
        install_id="0" * 32,
        name="\U0001f600" * MAX_NAME_CHARS,
        client_version="\U0001f600" * MAX_NAME_CHARS,
    )
    assert len(encode(longest)) <= MAX_STRANGERS_BYTES


async def test_continue_is_said_only_to_whoever_may_send(door: Door) -> None:
    """A sender that waits for a word before its body gets the refusal instead."""
    body = enrolment(door.token)
    caller = await door.call()
    await caller.send(request("POST", "/v1/devices", length=len(body), Expect="100-continue"))
    assert (await caller.answer()).status == 100
    await caller.send(body)
    assert decode((await caller.answer()).body, Enrolled).credential

    stranger = await door.say(request("POST", "/v1/reports", length=100, Expect="100-continue"))
    assert stranger.status == 401


async def test_a_trickled_message_ends(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """408, which a board of ours repeats; and the place is free for others."""
    monkeypatch.setattr(streaming, "MESSAGE_S", 0.05)
    caller = await door.call()
    await caller.send(request("POST", "/v1/devices", length=1000) + b"\x85")

    answer = await caller.answer()

    assert (answer.status, answer.refusal.code) == (408, "busy") and door.count("slow_body") == 1
    assert (await door.say(request("POST", "/v1/devices", enrolment(door.token)))).status == 200


async def test_a_trickled_upload_ends_and_what_came_is_kept(
    start: Any, make_folder: Any, begin_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """409 with the offset: the board goes on from there."""
    server = await start(make_folder())
    boards = [await server.board("ada"), await server.board("bo")]
    task, _ = await begin_training(boards)
    body = boards[0].update(task)
    monkeypatch.setattr(streaming, "BLOCK_S", 0.05)
    monkeypatch.setattr(streaming._chunks, "__defaults__", (0.05,))
    gate = asyncio.Event()

    async def trickle() -> AsyncIterator[bytes]:
        yield body[:100]
        await gate.wait()

    headers = {
        **boards[0].headers,
        "Upload-Digest": hashlib.sha256(body).hexdigest(),
        "Upload-Length": str(len(body)),
        "Upload-Offset": "0",
    }
    async with server.client.patch("/v1/uploads/1", data=trickle(), headers=headers) as response:
        assert (response.status, response.headers["Upload-Offset"]) == (409, "100")
    gate.set()

    assert (await boards[0].upload(1, body, offset=100))[0] == 200


async def test_few_bodies_are_read_at_once(open_door: Any) -> None:
    """Of one address, and in all; others are told when to come again, and come in once there is room."""
    door = await open_door(bodies_of_strangers=(2, 8))
    slow = [await door.call() for _ in range(2)]
    for caller in slow:
        await caller.send(request("POST", "/v1/devices", length=1000) + b"\x85")
    while door.guard._bodies_of_strangers._n_taken < 2:  # noqa: ASYNC110 - the server reads at its own pace
        await asyncio.sleep(0.001)

    refused = await door.say(request("POST", "/v1/devices", enrolment(door.token)))

    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    await slow[0].close()
    while door.guard._bodies_of_strangers._n_taken == 2:  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.001)
    assert (await door.say(request("POST", "/v1/devices", enrolment(door.token)))).status == 200


async def test_a_body_that_nobody_wants_is_not_held_in_memory(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is read no more once the answer is known; only what had come by then was taken in."""
    taken: list[int] = []
    whole = Connection.data_received

    def counted(self: Connection, data: bytes) -> None:
        taken.append(len(data))
        whole(self, data)

    monkeypatch.setattr(Connection, "data_received", counted)
    caller = await door.call()
    caller.writer.write(request("POST", "/v1/devices", bytes(BIG_BYTES // 8)))
    assert (await caller.answer()).status == 413

    assert await caller.is_closed()
    assert 0 < sum(taken) < BIG_BYTES // 32


def with_big_file(opened: Opened) -> Opened:
    """The server with a base that has one more file, of BIG_BYTES zeros."""
    path = Path(opened.config.model.path) / "big.safetensors"
    with path.open("wb") as file:
        file.truncate(BIG_BYTES)
    files = {**opened.base_files, path.name: BaseFile(size_bytes=BIG_BYTES, changed_ns=0, digest=file_digest(path))}
    return replace(opened, base_files=MappingProxyType(files))


@pytest.mark.slow
async def test_an_answer_that_nobody_reads_is_given_up(open_door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is broken off, its place is free, and whoever does read gets all of it."""
    monkeypatch.setattr(streaming, "UNREAD_S", 0.2)
    door = await open_door(with_big_file, downloads=1)
    fetch = request("GET", "/v1/base/big.safetensors", Authorization=f"Bearer {await door.enrol()}")
    lazy = await door.call()
    lazy.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await lazy.send(fetch)
    while not door.count("unread"):
        assert door.guard._downloads._n_taken <= 1
        await asyncio.sleep(0.01)

    assert door.guard._downloads._n_taken == 0
    monkeypatch.setattr(streaming, "UNREAD_S", 30.0)
    assert len((await door.say(fetch)).body) == BIG_BYTES


async def test_a_device_fetches_few_files_at_once(open_door: Any) -> None:
    """One more is told when to come again; another device is not held up."""
    door = await open_door(with_big_file, downloads=1)
    fetch = request("GET", "/v1/base/big.safetensors", Authorization=f"Bearer {await door.enrol(1)}")
    slow = await door.call()
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await slow.send(fetch)
    while not door.guard._downloads._n_taken:  # noqa: ASYNC110 - the server begins in its own time
        await asyncio.sleep(0.001)

    assert (await door.say(fetch)).status == 429
    other = await door.enrol(2)
    assert (await door.say(request("GET", "/v1/base/config.json", Authorization=f"Bearer {other}"))).status == 200


async def test_a_media_type_beyond_ascii_is_a_bad_request(door: Door) -> None:
    """`v=\\xff` in Content-Type and Accept was a 500 with a traceback; a stranger's as well."""
    credential = await door.enrol()
    odd = CONTENT_TYPE.replace("v=1", "v=\xff")
    enrolled = await door.say(request("POST", "/v1/devices", b"x", Content_Type=odd))
    asked = await door.say(request("GET", "/v1/run", Authorization=f"Bearer {credential}", Accept=odd))

    stranger = await door.say(request("GET", "/", Accept=odd))

    assert (enrolled.status, asked.status, stranger.status) == (400, 400, 400)
    assert door.count("nonsense") == 3
