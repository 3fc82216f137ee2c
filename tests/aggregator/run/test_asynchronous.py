"""Asynchronous runs over HTTP: what comes late counts, less, once, and against the version that it was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregator.merge.state import AdapterState, encode_state
from aggregator.merge.sums import Contribution
from wire.codec import decode
from wire.messages import Receipt, Refusal, RoundSpec, Task, Update
from wire.tensors import unpack

pytestmark = pytest.mark.slow  # many rounds

ASYNCHRONOUS = {
    "run.rounds": 8,
    "rounds.mode": "asynchronous",
    "rounds.min_devices": 3,
    "rounds.quorum": 2,
    "rounds.staleness_limit": 3,
    "merge.server_rank": 48,  # no truncation: a merge is exact
}
NAMES = ("ada", "bob", "slow y")


@pytest.fixture
def begin(make_folder: Any, start: Any, begin_training: Any) -> Callable[..., Any]:
    """A run of two quick boards and a slow one, all told to train for round 1; their server, boards and first tasks."""

    async def make(settings: dict[str, Any] | None = None, name: str = "server") -> Any:
        server = await start(make_folder({**ASYNCHRONOUS, **(settings or {})}, name=name))
        boards = [await server.board(name, install=number) for number, name in enumerate(NAMES, 1)]
        return server, boards, await begin_training(boards)

    return make


async def close_round(boards: Any, last: int = 0) -> Task:
    """These boards train for the open round, which closes; the first one's next task."""
    for board in boards:
        await board.train(await board.work(after=last))
    task: Task = await boards[0].work(after=last + 1)
    return task


def products(state: AdapterState) -> dict[str, Any]:
    return {name: weight.frozen_b.astype(np.float64) @ weight.frozen_a for name, weight in state.weights.items()}


def trained(body: bytes, sent: AdapterState) -> dict[str, Any]:
    """ΔW of an update, on the basis of the version that its board was sent."""
    b = {part.name: unpack(part.b).astype(np.float64) for part in decode(body, Update).parts}
    return {name: value @ sent.weights[name].basis[: value.shape[1]] for name, value in b.items()}


def contributions(server: Any) -> list[Contribution]:
    """What the open round has accepted, as it will be summed."""
    return list(server.run.sums.contributions(server.run.open_round, server.run.state))


async def test_a_late_update_counts_by_its_staleness_on_the_basis_that_it_was_trained_on(begin: Any) -> None:
    """Two versions behind, n = 30 against n = 10: W grows by the mean with weights 10 and 30/√3, in dense numbers."""
    server, boards, (_, _, task) = await begin()
    first = server.run.state
    await close_round(boards[:2])
    await close_round(boards[:2], 1)
    before = server.run.state
    late = boards[2].update(task, n_examples=30)
    timely_task = await boards[0].work(after=2)
    timely = boards[0].update(timely_task)

    assert (await boards[2].upload(1, late))[1] == Receipt(accepted=True)
    assert (await boards[0].upload(3, timely))[1] == Receipt(accepted=True)
    assert (await boards[1].work(after=3)).spec.round == 4

    name = next(iter(first.weights))
    assert not np.allclose(first.weights[name].basis, before.weights[name].basis)
    weight = 30 / np.sqrt(3)
    told, old, new = products(server.run.state), trained(late, first), trained(timely, before)
    for name, product in products(before).items():
        expected = product + (10 * new[name] + weight * old[name]) / (10 + weight)
        assert np.linalg.norm(told[name] - expected) < 1e-5 * np.linalg.norm(expected)


async def test_status_and_rounds_show_how_late_updates_were(begin: Any) -> None:
    """The fill of the open buffer, each board's last staleness, and per round how many updates were stale."""
    server, boards, (_, _, task) = await begin()
    await close_round(boards[:2])
    await close_round(boards[:2], 1)

    await boards[2].train(task)
    facts = await server.status()

    assert (facts["run"]["mode"], facts["run"]["accepted"], facts["run"]["stale"]) == ("asynchronous", 1, 1)
    assert [board["staleness"] for board in facts["boards"]] == [0, 0, 2]
    await boards[0].train(await boards[0].work(after=2))
    await boards[0].work(after=3)
    rounds = {row["round"]: row for row in (await server.status())["rounds"]}
    assert [rounds[number]["stale"] for number in (1, 2, 3)] == [0, 0, 1]
    assert (rounds[3]["accepted"], rounds[3]["reason"], rounds[3]["state"]) == (2, "quorum", "merged")


async def test_a_round_waits_for_its_quorum_and_for_nobody_else(begin: Any, clock: Any) -> None:
    """Live boards that have not answered hold nothing; a deadline without a quorum only extends the round."""
    server, boards, tasks = await begin()
    await boards[0].train(tasks[0])
    clock.advance(server.run.config.rounds.deadline_s + 1)
    await server.run.step()
    assert server.run.open_round.round == 1 and server.run.open_round.until_s is not None

    await boards[1].train(tasks[1])

    assert (await boards[0].work(after=1)).spec.round == 2


async def test_too_old_an_update_is_gone_and_its_board_goes_straight_to_the_newest_version(begin: Any) -> None:
    """At the limit it counts; one version further it is refused before a byte is sent, the answer names the newest
    version, and the board's next task is of it."""
    _, boards, (_, _, task) = await begin({"rounds.staleness_limit": 2})
    for last in range(3):
        await close_round(boards[:2], last)

    body = boards[2].update(task)
    headers = {**boards[2].headers, "Upload-Digest": hashlib.sha256(body).hexdigest()}
    async with boards[2].client.head("/v1/uploads/1", headers=headers) as response:
        assert response.status == 410
    status, answer, _ = await boards[2].upload(1, body)
    fresh = await boards[2].work(after=1)

    assert status == 410 and isinstance(answer, Refusal) and answer.code == "gone"
    assert "the newest version is 4" in answer.message
    assert (fresh.kind, fresh.spec.round, fresh.spec.version, fresh.staleness_limit) == ("train", 4, 4, 2)
    assert fresh.time_left_s is None


async def test_a_straggler_contributes_after_many_versions_and_goes_on(begin: Any) -> None:
    """It never answers in time, and both of its updates count."""
    server, boards, (_, _, task) = await begin()
    quick, slow = boards[:2], boards[2]
    for last in range(3):
        await close_round(quick, last)
    assert (await slow.train(task)).accepted
    await close_round(quick[:1], 3)
    task = await slow.work(after=1)
    assert (task.spec.round, task.spec.version) == (5, 5)
    await close_round(quick, 4)

    assert (await slow.train(task)).accepted

    mine = [answer for answer in server.opened.store.updates() if answer.device == slow.device]
    assert [(each.round, each.counted_in, each.staleness) for each in mine] == [(1, 4, 3), (5, 6, 1)]


async def test_a_board_counts_once_in_every_round(begin: Any) -> None:
    """Updates that were held back do not fill a buffer: beside one of its own, late or not, a board has no other, and
    it is asked for the next round's."""
    server, boards, (_, held, task) = await begin()
    slow = boards[2]
    await close_round([boards[0], slow])
    second = await slow.work(after=1)
    await close_round([boards[0], boards[1]], 1)
    assert (await slow.train(second)).accepted
    assert (await slow.work(wait_s=0, after=-1)).kind == "wait"

    third = msgspec.structs.replace(task, spec=RoundSpec(round=3, version=3))
    status, answer, _ = await slow.upload(3, slow.update(third))

    assert status == 409 and isinstance(answer, Refusal) and answer.code == "conflict"
    assert (await boards[1].train(held)).accepted
    assert (await slow.work(after=2)).spec.round == 4
    assert server.opened.store.counts("counted_in")[3] == (2, 0, 2)


async def test_a_repeated_late_update_is_answered_again_and_another_one_is_a_conflict(begin: Any) -> None:
    """As in time: one update per board and round, whichever round it counts in, also after that one is over."""
    server, boards, (_, _, task) = await begin()
    await close_round(boards[:2])
    body = boards[2].update(task)
    first = await boards[2].upload(1, body)

    assert first[1] == Receipt(accepted=True) and await boards[2].upload(1, body) == first
    assert server.run.open_round.accepted == 1
    await boards[0].train(await boards[0].work(after=1))
    await boards[0].work(after=2)
    assert await boards[2].upload(1, body) == first
    status, answer, _ = await boards[2].upload(1, boards[2].update(task, n_examples=11))
    assert status == 409 and isinstance(answer, Refusal) and answer.code == "conflict"
    assert server.run.open_round.accepted == 0


async def test_a_quick_board_has_one_update_per_round(begin: Any) -> None:
    """Having answered, it waits for the next round instead of filling the buffer alone."""
    _, boards, tasks = await begin()
    await boards[0].train(tasks[0])

    assert (await boards[0].work(wait_s=0, after=1)).kind == "wait"
    assert (await boards[0].work(wait_s=0, after=-1)).kind == "wait"


async def test_a_restart_in_the_middle_of_a_buffer_changes_no_bit(begin: Any, start: Any, stop: Any) -> None:
    """Late updates of two versions, and a refused one, then a restart, then the rest: the next version has the same
    bytes as without it, and what had been sent is answered as before."""
    states = []
    for name in ("whole", "cut"):
        server, quick, _ = await begin({"rounds.quorum": 3}, name=name)
        slow, slower, bad = [await server.board(each, install=i) for i, each in enumerate(("e", "fay", "bad"), 5)]
        oldest = await slower.work()
        await close_round(quick)
        older = await slow.work()
        await close_round(quick, 1)
        await slower.train(oldest), await slow.train(older, n_examples=30)
        assert not (await bad.train(oldest, rename="decoder.nothing")).accepted
        if name == "cut":
            await stop(server)
            server = await start(server.opened.folder)
            for board in (*quick, slow, slower, bad):
                board.server = server
            assert (server.run.open_round.accepted, server.run.open_round.stale) == (2, 2)
            assert (await slower.train(oldest)).accepted and (await slow.upload(2, slow.update(older)))[0] == 409
            assert not (await bad.train(oldest, rename="decoder.nothing")).accepted
        await close_round(quick[:1], 2)
        states.append(encode_state(server.run.state))

    assert states[0] == states[1]


async def test_an_upload_in_flight_outlives_its_round_and_a_restart(begin: Any, start: Any, stop: Any) -> None:
    """Half of it came in time, the rest two rounds later to a server that was restarted: no byte is sent twice."""
    server, boards, (_, _, task) = await begin()
    body = boards[2].update(task)
    half = len(body) // 2
    assert (await boards[2].upload(1, body, stop=half))[::2] == (409, str(half))
    await close_round(boards[:2])
    await close_round(boards[:2], 1)
    await stop(server)
    server = await start(server.opened.folder)
    boards[2].server = server

    status, answer, _ = await boards[2].upload(1, body, offset=half)

    assert (status, answer) == (200, Receipt(accepted=True))
    assert server.run.open_round.stale == 1


async def test_an_upload_of_a_round_that_counts_no_more_is_swept(begin: Any) -> None:
    """What nobody will ask for does not stay on the disk."""
    server, boards, (_, _, task) = await begin({"rounds.staleness_limit": 1})
    body = boards[2].update(task)
    await boards[2].upload(1, body, stop=100)
    await close_round(boards[:2])
    assert [path.name.split(".")[1] for path in server.opened.folder.uploads.iterdir()] == ["1"]

    await close_round(boards[:2], 1)

    assert list(server.opened.folder.uploads.iterdir()) == []


async def test_versions_that_late_updates_may_need_are_kept_and_no_others(begin: Any) -> None:
    """With a limit of 3: the newest and three before it."""
    server, boards, _ = await begin({"rounds.staleness_limit": 3})
    for last in range(6):
        await close_round(boards[:2], last)

    assert sorted(server.opened.store.versions()) == [4, 5, 6, 7]


async def test_late_sketches_count_only_where_a_basis_is_made(begin: Any) -> None:
    """Updates of round 2, which sketches, give round 3, which does not, no basis; round 4 takes their sketches."""
    server, boards, _ = await begin({"merge.sketch_every": 2})
    other = await server.board("other", install=9)
    await close_round(boards[:2])
    slow, slower = await boards[2].work(after=1), await other.work(after=1)
    assert slow.spec.sketch and slower.spec.sketch
    await close_round(boards[:2], 1)
    before = server.run.state

    await boards[2].train(slow)
    assert not any(board.sketches for board in contributions(server))
    await boards[0].train(await boards[0].work(after=2))
    await boards[0].work(after=3)
    assert all(np.array_equal(w.basis, before.weights[name].basis) for name, w in server.run.state.weights.items())
    await other.train(slower)

    (late,) = contributions(server)
    assert server.run.open_round.round == 4 and set(late.sketches) == set(before.weights)


async def test_after_the_last_round_a_late_update_is_gone(begin: Any) -> None:
    """There is no version left that it could change; the board evaluates."""
    _, boards, (_, _, task) = await begin({"run.rounds": 1})
    await close_round(boards[:2])

    status, answer, _ = await boards[2].upload(1, boards[2].update(task))

    assert status == 410 and isinstance(answer, Refusal)
    assert (await boards[2].work(after=1)).kind == "evaluate"


async def test_a_synchronous_run_may_count_late_updates_too(begin: Any) -> None:
    """With a limit above 0 the deadline costs a slow board its place in the round, not its work."""
    settings = {"rounds.mode": "synchronous", "rounds.staleness_limit": 1, "rounds.grace_s": 0.0}
    server, boards, (_, _, task) = await begin(settings)
    assert (await close_round(boards[:2])).spec.round == 2

    assert (await boards[2].train(task)).accepted

    assert server.run.open_round.stale == 1


async def test_an_older_version_that_cannot_be_read_is_gone_and_harms_nobody(begin: Any) -> None:
    """The blob of the version is damaged: the late update is refused for good, and rounds go on."""
    server, boards, (_, _, task) = await begin()
    await close_round(boards[:2])
    path = server.opened.folder.blobs / server.opened.store.versions()[1]
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    status, answer, _ = await boards[2].upload(1, boards[2].update(task))

    assert status == 410 and isinstance(answer, Refusal) and "version 1" in answer.message
    assert (await close_round(boards[:2], 1)).spec.round == 3


async def test_a_run_of_equal_ranks_gives_and_takes_no_others(begin: Any) -> None:
    """Where train.rank is set, a download and an update of another rank are refused; rank 0 everywhere evaluates."""
    _, boards, tasks = await begin({"train.rank": 2})

    assert len((await boards[0].adapter(1, 2)).parts) == len((await boards[0].adapter(1, 0)).parts)
    ranks = ".".join("3" for _ in boards[0].info.weights)
    async with boards[0].client.get("/v1/adapters/1", headers=boards[0].headers, params={"ranks": ranks}) as response:
        assert response.status == 400
    assert not (await boards[0].train(tasks[0], rank=3)).accepted
    assert (await boards[1].train(tasks[1], rank=2)).accepted
