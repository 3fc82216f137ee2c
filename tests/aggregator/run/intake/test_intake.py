"""Uploads between the disk and their judgement: answered at once, judged in order, lost by nothing."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aggregator.merge.state import encode_state
from aggregator.run.intake.inbox import MAX_FAILURES
from aggregator.run.intake.judging import Judge
from wire.messages import Receipt, Refusal, Report


class SlowJudge:
    """Judges nothing until it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may, self.asked = threading.Event(), threading.Event()
        whole = Judge.judge

        def judge(*arguments: Any) -> Any:
            self.asked.set()
            assert self.may.wait(30)
            return whole(*arguments)

        monkeypatch.setattr(Judge, "judge", judge)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowJudge]:
    judge = SlowJudge(monkeypatch)
    judge.may.set()
    yield judge
    judge.may.set()  # or its thread would hold up the end of the test


@pytest.fixture
async def training(make_folder: Any, start: Any, begin_training: Any, slow: SlowJudge) -> Any:
    """A server with four boards that are told to train; three are a quorum."""
    settings = {"rounds.min_devices": 3, "rounds.quorum": 3, "train.targets": ["q"], "merge.max_rank": 1}
    server = await start(make_folder(settings))
    boards = [await server.board(name) for name in ("a", "bo", "cyd", "dora")]
    return server, boards, await begin_training(boards)


async def status_of(board: Any, body: bytes, wait_s: float = 0.0) -> int:
    headers = {**board.headers, "Upload-Digest": hashlib.sha256(body).hexdigest()}
    async with board.client.get(f"/v1/uploads/1?wait={wait_s:g}", headers=headers) as response:
        return int(response.status)


async def test_nobody_waits_for_a_judgement(training: Any, slow: SlowJudge) -> None:
    """While one update is judged, others are answered 202, boards enrol, report and are told to wait; then all count
    in the order in which they came."""
    server, boards, tasks = training
    slow.may.clear()
    slow.asked.clear()
    bodies = [board.update(task, rank=1) for board, task in zip(boards, tasks, strict=True)]

    for board, body in zip(reversed(boards), reversed(bodies), strict=True):
        assert (await board.patch(1, body))[0] == 202
        assert (await board.work(wait_s=0)).kind == "wait"
    await asyncio.to_thread(slow.asked.wait, 10)
    late = await server.board("eve", install=7)
    assert await late.report(Report(kind="plan", text="nf4/fp32")) == 204
    assert server.run.open_round.accepted == 0 and await status_of(boards[0], bodies[0]) == 202
    assert (await boards[0].patch(1, bodies[0]))[0] == 202, "sent again, it is the same"

    slow.may.set()
    answers = await asyncio.gather(*(board.upload(1, body) for board, body in zip(boards, bodies, strict=True)))
    assert [answer[:2] for answer in answers] == [(200, Receipt(accepted=True))] * 4
    assert [row.device for row in server.opened.store.updates(1)] == [board.device for board in reversed(boards)]
    assert server.opened.store.received() == ()


async def test_a_deadline_does_not_pass_over_what_is_here(training: Any, slow: SlowJudge, clock: Any) -> None:
    """The round's time is up while uploads wait: they are judged first, and are in the version."""
    server, boards, tasks = training
    slow.may.clear()
    for board, task in zip(boards[:3], tasks, strict=False):
        assert (await board.patch(1, board.update(task, rank=1)))[0] == 202
    clock.advance(server.run.config.rounds.deadline_s + 1)

    slow.may.set()

    assert (await boards[0].work(after=1)).spec.round == 2
    row, counts = server.run.rounds()[0]
    assert (row.state, counts.accepted) == ("merged", 3)


@pytest.mark.slow
async def test_what_was_answered_outlives_the_server(
    training: Any, slow: SlowJudge, start: Any, stop: Any, make_folder: Any, begin_training: Any
) -> None:
    """Stopped with uploads that are not judged, the next server judges them, though nobody sends them again; the
    version has the bits that it has where nothing was interrupted."""
    server, boards, tasks = training
    whole = await start(make_folder({**_same_run(server)}, name="whole"))
    others = [await whole.board(name) for name in ("a", "bo", "cyd", "dora")]
    for board, task in zip(others, await begin_training(others), strict=True):
        await board.train(task, rank=1)
    await others[0].work(after=1)
    slow.may.clear()
    slow.asked.clear()
    for board, task in zip(boards, tasks, strict=True):
        assert (await board.patch(1, board.update(task, rank=1)))[0] == 202
    await asyncio.to_thread(slow.asked.wait, 10)
    stopping = asyncio.ensure_future(stop(server))
    await asyncio.sleep(0.05)
    slow.may.set()
    await stopping
    assert len(server.opened.run.open_round.answers) == 1, "it was stopped between two judgements"

    again = await start(server.opened.folder)
    for board in boards:
        board.server = again

    assert (await boards[0].work(after=1)).spec.round == 2
    assert encode_state(again.run.state) == encode_state(whole.run.state)


def _same_run(server: Any) -> dict[str, Any]:
    rounds = server.run.config.rounds
    return {
        "rounds.min_devices": rounds.min_devices,
        "rounds.quorum": rounds.quorum,
        "train.targets": ["q"],
        "merge.max_rank": 1,
    }


async def test_an_upload_that_is_damaged_before_it_is_judged_is_sent_again(training: Any, slow: SlowJudge) -> None:
    """The board finds that it is not here any more; people are told."""
    server, (board, *_), (task, *_) = training
    body = board.update(task, rank=1)
    slow.may.clear()
    assert (await board.patch(1, body))[0] == 202
    path = server.opened.folder.blobs / hashlib.sha256(body).hexdigest()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    slow.may.set()

    assert await status_of(board, body, 10) == 404
    assert any("is sent again" in warning for warning in (await server.status())["run"]["warnings"])
    assert (await board.upload(1, body))[:2] == (200, Receipt(accepted=True))


async def test_receipts_of_what_is_not_here(training: Any) -> None:
    """404 while it may still be sent, 410 once its round is over."""
    server, boards, tasks = training
    late = boards[3]
    assert await status_of(late, b"never sent") == 404
    for board, task in zip(boards[:3], tasks, strict=False):
        await board.train(task, rank=1)
    server.run.boards[late.device].seen_s = None
    server.run.changed.send()
    assert (await boards[0].work(after=1)).spec.round == 2

    assert await status_of(late, b"never sent") == 410


async def test_a_board_sends_what_cannot_be_read_a_few_times_only(training: Any) -> None:
    """Uploads that wait hold the round: whoever sends garbage is not taken in without end."""
    _, (board, *_), _ = training
    for number in range(MAX_FAILURES):
        status, answer, _ = await board.upload(1, b"garbage %d" % number)
        assert status == 400 and isinstance(answer, Refusal), answer

    status, answer, _ = await board.upload(1, b"garbage")

    assert (status, answer.code) == (409, "conflict")


async def test_a_server_that_stops_answers_who_waits_for_a_receipt(training: Any, slow: SlowJudge) -> None:
    """202 at once: a board that waits must not hold up a restart."""
    server, (board, *_), (task, *_) = training
    body = board.update(task, rank=1)
    slow.may.clear()
    await board.patch(1, body)
    waiting = asyncio.ensure_future(status_of(board, body, 50))
    await asyncio.sleep(0.05)

    server.run.inbox.stop()

    assert await asyncio.wait_for(waiting, 5) == 202


async def test_a_profile_goes_on_where_it_broke(make_folder: Any, start: Any, stop: Any) -> None:
    """As an update does, also after a restart of the server; it counts once."""
    server = await start(make_folder())
    board = await server.board("ada")
    body = board.profile()
    digest, half = hashlib.sha256(body).hexdigest(), len(body) // 2
    assert (await board.upload(0, body, stop=half))[::2] == (409, str(half))
    await stop(server)
    board.server = server = await start(server.opened.folder)

    headers = {**board.headers, "Upload-Digest": digest}
    async with board.client.head("/v1/uploads/0", headers=headers) as response:
        assert (response.headers["Upload-Offset"], response.headers["Upload-Complete"]) == (str(half), "0")
    assert (await board.upload(0, body, offset=half))[:2] == (200, Receipt(accepted=True))

    assert server.run.open_round.accepted == 1
    async with board.client.head("/v1/uploads/0", headers=headers) as response:
        assert response.headers["Upload-Complete"] == "1"
