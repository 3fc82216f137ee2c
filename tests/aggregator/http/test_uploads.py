"""Uploads by offset: every break can be continued, every repeat is safe."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from aggregator.store.uploads import OffsetError, SupersededError, Uploads
from wire.messages import Receipt, Refusal


@pytest.fixture
async def training(make_folder: Any, start: Any, begin_training: Any) -> Any:
    server = await start(make_folder({"train.targets": ["q"], "merge.max_rank": 1}))
    boards = [await server.board("ada"), await server.board("bo")]
    return server, boards, await begin_training(boards)


async def offset_of(server: Any, board: Any, digest: str) -> tuple[int, str, str]:
    headers = {**board.headers, "Upload-Digest": digest}
    async with server.client.head("/v1/uploads/1", headers=headers) as response:
        return response.status, response.headers.get("Upload-Offset", ""), response.headers.get("Upload-Complete", "")


async def test_an_upload_continues_from_every_offset(training: Any) -> None:
    """Cut anywhere, also before the first and after the last byte, the rest completes it and it counts once."""
    server, (board, _), (task, _) = training
    body = board.update(task, rank=1)
    digest = hashlib.sha256(body).hexdigest()
    length = len(body)
    for cut in [0, 1, 2, length // 3, length // 2, length - 1, *range(7, length, length // 40)]:
        part = server.opened.uploads.take(board.device, 1, digest, 0)
        part.append(body[:cut])
        part.release()
        assert await offset_of(server, board, digest) == (200, str(cut) if cut else "0", "0")
        status, answer, reached = await board.upload(1, body, offset=cut, stop=length - 1 if cut < length - 1 else cut)
        assert (status, reached) == (409, str(max(cut, length - 1))), answer
        server.opened.uploads.take(board.device, 1, digest, int(reached)).discard()
        server.opened.uploads._holders.clear()

    part = server.opened.uploads.take(board.device, 1, digest, 0)
    part.append(body[: length // 2])
    part.release()
    status, answer, _ = await board.upload(1, body, offset=length // 2)
    assert status == 200 and isinstance(answer, Receipt) and answer.accepted
    assert await offset_of(server, board, digest) == (200, str(length), "1")
    assert server.run.open_round.accepted == 1


async def test_a_wrong_offset_says_where_to_go_on(training: Any) -> None:
    """409 with the offset reached, and nothing is overwritten."""
    _server, (board, _), (task, _) = training
    body = board.update(task, rank=1)

    assert (await board.upload(1, body, stop=100))[::2] == (409, "100")
    for wrong in (0, 99, 101):
        status, answer, reached = await board.upload(1, body, offset=wrong)
        assert (status, reached) == (409, "100") and isinstance(answer, Refusal) and answer.code == "conflict"
    assert (await board.upload(1, body, offset=100))[0] == 200


async def test_a_repeat_gets_the_same_receipt_and_other_bytes_a_conflict(training: Any) -> None:
    """After the commit the same digest is acknowledged again, from any offset; another digest is 409."""
    server, (board, other), (task, second) = training
    body = board.update(task, rank=1)
    first = await board.upload(1, body)

    assert await board.upload(1, body) == first == (200, Receipt(accepted=True), "")
    assert await board.upload(1, body, offset=len(body)) == first
    status, answer, _ = await board.upload(1, board.update(task, rank=1, n_examples=99))
    assert status == 409 and isinstance(answer, Refusal) and answer.code == "conflict"
    assert server.run.open_round.accepted == 1

    await other.train(second, rank=1)
    assert (await other.work(after=1)).spec.round == 2
    assert await board.upload(1, body) == first  # also after the round is over


async def test_a_closed_round_is_gone(training: Any) -> None:
    """410 for a board that comes too late, and for a round that was never opened."""
    server, (board, other), tasks = training
    await board.train(tasks[0], rank=1), await other.train(tasks[1], rank=1)
    assert (await other.work(after=1)).spec.round == 2  # before another joins: round 1, if still open, would await it
    late = await server.board("cyd")

    for round_id in (1, 3):
        status, answer, _ = await late.upload(round_id, late.update(tasks[0], rank=1))
        assert status == 410 and isinstance(answer, Refusal) and answer.code == "gone"


async def test_damaged_bytes_are_thrown_away(training: Any) -> None:
    """Bytes that a line has changed: 409 says that the upload starts again from 0, and it can still succeed.

    It was 400, which tells a board to drop its work: a flipped bit cost it the round, and a round that needs all of its
    boards waited for ever (found by `make chaos`).
    """
    server, (board, _), (task, _) = training
    body = board.update(task, rank=1)
    digest = hashlib.sha256(body).hexdigest()

    status, answer, offset = await board.upload(1, body[:-1] + b"x", digest=digest)

    assert status == 409 and isinstance(answer, Refusal) and "SHA-256" in answer.message
    assert offset == "0"
    assert await offset_of(server, board, digest) == (200, "0", "0")
    assert (await board.upload(1, body))[0] == 200


@pytest.mark.parametrize(("length", "offset"), [(0, 0), (5, 6)])
async def test_lengths_that_cannot_be_are_bad_requests(training: Any, length: int, offset: int) -> None:
    """An empty upload, and one that goes on behind its end."""
    server, (board, _), _ = training
    headers = {"Upload-Digest": "a" * 64, "Upload-Length": str(length), "Upload-Offset": str(offset)}

    async with server.client.patch("/v1/uploads/1", data=b"", headers={**board.headers, **headers}) as response:
        assert response.status == 400
    assert list(server.opened.folder.uploads.iterdir()) == []


async def test_a_body_longer_than_announced_is_too_large(training: Any) -> None:
    """The bytes are counted, whatever the headers say."""
    server, (board, _), (task, _) = training
    body = board.update(task, rank=1)
    digest = hashlib.sha256(body).hexdigest()
    headers = {**board.headers, "Upload-Digest": digest, "Upload-Length": "100", "Upload-Offset": "0"}

    async with server.client.patch("/v1/uploads/1", data=body, headers=headers) as response:
        assert response.status == 413
    assert await offset_of(server, board, digest) == (200, "0", "0")


async def test_what_arrived_before_the_connection_dropped_is_kept(training: Any) -> None:
    """A raw connection that is closed in the middle of the body: the next HEAD has the bytes that came."""
    server, (board, _), (task, _) = training
    body = board.update(task, rank=1)
    digest = hashlib.sha256(body).hexdigest()
    _, writer = await asyncio.open_connection(server.client.host, server.client.port)
    headers = {
        **board.headers,
        "Host": "x",
        "Content-Length": str(len(body)),
        "Upload-Digest": digest,
        "Upload-Length": str(len(body)),
        "Upload-Offset": "0",
    }
    head = "PATCH /v1/uploads/1 HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
    writer.write(head.encode() + body[:321])
    await writer.drain()
    while server.opened.uploads.size(board.device, 1, digest) < 321:  # noqa: ASYNC110 - it is the disk that changes
        await asyncio.sleep(0.005)
    writer.close()
    await writer.wait_closed()

    assert await offset_of(server, board, digest) == (200, "321", "0")
    assert (await board.upload(1, body, offset=321))[0] == 200


async def test_two_identical_uploads_at_once_count_once(training: Any) -> None:
    """A client that gave a slow request up and sent it again cannot be counted twice."""
    server, (board, _), (task, _) = training
    body = board.update(task, rank=1)

    answers = await asyncio.gather(*(board.upload(1, body) for _ in range(4)))

    assert any(status == 200 for status, _, _ in answers)
    assert all(status in (200, 409, 503) for status, _, _ in answers)
    assert (await board.upload(1, body))[0] == 200
    assert server.run.open_round.accepted == 1


def test_the_last_request_holds_an_upload(tmp_path: Path) -> None:
    """An older request can add nothing once a newer one has taken over; a device has one unfinished upload."""
    uploads = Uploads(tmp_path)
    old = uploads.take("d-1", 1, "a" * 64, 0)
    old.append(b"12345")

    new = uploads.take("d-1", 1, "a" * 64, 5)
    with pytest.raises(SupersededError):
        old.append(b"x")
    old.release()
    new.append(b"678")
    with pytest.raises(OffsetError) as caught:
        uploads.take("d-1", 1, "a" * 64, 5)

    assert caught.value.offset == 8
    uploads.take("d-1", 1, "b" * 64, 0)
    assert uploads.size("d-1", 1, "a" * 64) == 0
    with pytest.raises(SupersededError):
        new.append(b"x")
    uploads.take("d-2", 2, "c" * 64, 0).append(b"later")
    assert uploads.sweep({2}) == 0 and uploads.sweep(()) == 1
