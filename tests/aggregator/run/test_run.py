"""Whole runs over HTTP: what one board sends reaches the others, and nothing accepted is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from aggregator.merge.state import strand_values
from tests.fakes.clock import FakeClock
from wire.messages import Receipt, Report
from wire.run import RunInfo
from wire.tensors import unpack


async def test_a_run_goes_from_profiles_to_a_final_evaluation(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """Two boards take a run through every state; the result is version rounds + 1 and both evaluate it."""
    server = await start(make_folder())
    boards = [await server.board("ada"), await server.board("bo")]

    for task in (tasks := await begin_training(boards)):
        assert (task.kind, task.spec.round, task.spec.version, task.spec.sketch) == ("train", 1, 1, True)
    for board, task in zip(boards, tasks, strict=True):
        assert (await board.train(task)).accepted
    tasks = [await board.work(after=1) for board in boards]
    assert [(t.kind, t.spec.round, t.spec.version, t.spec.sketch) for t in tasks] == [("train", 2, 2, False)] * 2
    for board, task in zip(boards, tasks, strict=True):
        assert (await board.train(task)).accepted

    for i, board in enumerate(boards):
        task = await board.work(after=2)
        assert (task.kind, task.spec.version) == ("evaluate", 3)
        values = {"loss": 2.0 + i, "rougeL": 0.3, "n_examples": 10.0 * (i + 1)}
        assert await board.report(Report(kind="evaluation", round=2, version=3, values=values)) == 204
        assert (await board.work(after=2)).kind == "finished"
    facts = await server.status()
    assert facts["run"]["state"] == "finished" and facts["run"]["complete"]
    assert [row["state"] for row in facts["rounds"]] == ["merged", "merged"]
    final = facts["evaluations"][-1]
    assert (round(final["mean_loss"], 4), final["worst_loss"], final["worst_board"]) == (2.6667, 3.0, "bo")


async def test_the_strands_values_are_those_of_the_newest_version(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """A round's sketches make a new basis, and boards plan by its values, not by the first one's."""
    server = await start(make_folder())
    boards = [await server.board("ada"), await server.board("bo")]
    tasks = await begin_training(boards)
    before = (await boards[0].get("/v1/run", RunInfo)).values
    for board, task in zip(boards, tasks, strict=True):
        await board.train(task)
    await boards[0].work(after=1)

    info = await boards[0].get("/v1/run", RunInfo)

    assert info.values == strand_values(server.run.state) != before


@pytest.mark.slow
async def test_changing_one_boards_data_changes_what_another_receives(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """Federation is real: the same run twice, but for one board's B, gives the other board another context."""

    async def frozen_of_round_two(name: str, scale: float) -> np.ndarray[Any, Any]:
        server = await start(make_folder(name=name))
        ada, bo = await server.board("ada", install=1), await server.board("bob", install=2)
        tasks = await begin_training([ada, bo])
        await ada.train(tasks[0])
        await bo.train(tasks[1], scale=scale)
        task = await ada.work(after=1)
        part = (await ada.adapter(task.spec.version, 2)).parts[0]
        return unpack(part.frozen_b) @ unpack(part.frozen_a)

    first = await frozen_of_round_two("one", 0.01)
    again = await frozen_of_round_two("two", 0.01)
    other = await frozen_of_round_two("three", 0.02)

    assert np.array_equal(first, again)
    assert np.abs(first).max() > 1e-5
    assert np.abs(first - other).max() > 1e-3 * np.abs(first).max()


async def test_the_very_first_update_goes_no_farther_than_training(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """With nobody to compare it with, it is still known how far twenty steps of this size lead."""
    server = await start(make_folder({"train.learning_rate": 0.001, "train.local_steps": 20}))
    ada, bo = await server.board("ada"), await server.board("bo")
    tasks = await begin_training([ada, bo])

    refused, accepted = await ada.train(tasks[0], scale=0.1), await bo.train(tasks[1], scale=0.002)

    assert not refused.accepted and "train.learning_rate" in refused.reason
    assert accepted.accepted


async def test_boards_that_were_refused_are_asked_again(
    make_folder: Any, start: Any, begin_training: Any, clock: FakeClock
) -> None:
    """A round in which too much was refused ends at its deadline, on the version that it had, and the next one counts:
    it would else wait for boards that have answered it. What a refused board sent once is still refused."""
    server = await start(make_folder({"train.learning_rate": 0.001, "train.local_steps": 20}))
    ada, bo = boards = [await server.board("ada"), await server.board("bo")]
    tasks = await begin_training(boards)
    refused, accepted = await ada.train(tasks[0], scale=0.1), await bo.train(tasks[1], scale=0.002)
    assert not refused.accepted and accepted.accepted
    assert [(await board.work(wait_s=0, after=1)).kind for board in boards] == ["wait", "wait"]

    clock.advance(server.run.config.rounds.deadline_s + 1)
    for board in boards:
        await board.work(wait_s=0, after=1)  # they are there
    await server.run.step()

    assert not (await ada.train(tasks[0], scale=0.1)).accepted
    again = [await board.work(after=1) for board in boards]
    assert [(task.kind, task.spec.round, task.spec.version) for task in again] == [("train", 2, 1)] * 2
    for board, task in zip(boards, again, strict=True):
        assert (await board.train(task, scale=0.002)).accepted
    await server.run.step()
    rows, _ = zip(*server.run.rounds(), strict=True)
    assert [row.state for row in rows][:2] == [
        "abandoned",
        "merged",
    ] and "1 of 2 updates needed accepted, 1 refused" in rows[0].reason
    assert server.run.state.version == 2


async def test_a_renamed_key_is_refused_by_name(make_folder: Any, start: Any, begin_training: Any) -> None:
    """An update whose first weight has another name counts for nothing, and receipt, status and log say which."""
    server = await start(make_folder())
    ada, bo = await server.board("ada"), await server.board("bo")
    task, _ = await begin_training([ada, bo])

    receipt = await ada.train(task, rename="decoder.block.0.layer.0.SelfAttention.query")

    assert not receipt.accepted and "SelfAttention.query" in receipt.reason
    facts = await server.status()
    refused = next(board for board in facts["boards"] if board["name"] == "ada")
    assert refused["refused"] == 1 and "SelfAttention.query" in refused["reason"]
    assert facts["run"]["accepted"] == 0


async def test_a_board_that_has_answered_is_woken_when_the_round_closes(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """A long poll waits while there is nothing to do, and ends as soon as there is."""
    server = await start(make_folder())
    ada, bo = await server.board("ada"), await server.board("bo")
    first, second = await begin_training([ada, bo])
    await ada.train(first)
    assert (await ada.work(wait_s=0.0, after=1)).kind == "wait"

    polling = asyncio.create_task(ada.work(wait_s=30.0, after=1))
    await bo.train(second)

    assert (await asyncio.wait_for(polling, 10)).spec.round == 2


async def test_a_vanished_board_does_not_hold_the_round(
    make_folder: Any, start: Any, begin_training: Any, clock: Any
) -> None:
    """With a quorum the round closes once the third board has been silent for the liveness time."""
    server = await start(make_folder({"rounds.min_devices": 3, "rounds.quorum": 2, "rounds.liveness_s": 60.0}))
    boards = [await server.board(name) for name in ("ada", "bo", "cy")]
    tasks = await begin_training(boards)
    for board, task in zip(boards[:2], tasks, strict=False):
        await board.train(task)
    assert (await boards[0].work(wait_s=0.0, after=1)).kind == "wait"

    clock.advance(61)
    await server.run.step()

    assert (await boards[0].work(after=1)).spec.round == 2


@pytest.mark.slow
async def test_a_restarted_server_keeps_the_round_and_its_updates(
    make_folder: Any, start: Any, stop: Any, begin_training: Any
) -> None:
    """Restarted in mid-round, the server goes on in it: one update is there, the other arrives, and the merge is the
    same as without the restart."""
    folders = [make_folder(name=name) for name in ("whole", "cut")]
    adapters = []
    for folder in folders:
        server = await start(folder)
        ada, bo = await server.board("ada", install=1), await server.board("bob", install=2)
        first, second = await begin_training([ada, bo])
        body = ada.update(first)
        assert (await ada.upload(1, body))[0] == 200
        if folder is folders[1]:
            await stop(server)
            server = await start(folder)
            ada.server = bo.server = server
            status, receipt, _ = await ada.upload(1, body)
            assert status == 200 and isinstance(receipt, Receipt) and receipt.accepted
            assert server.run.open_round.accepted == 1
        await bo.train(second)
        task = await ada.work(after=1)
        adapters.append((await ada.adapter(task.spec.version, 2)).parts)

    assert adapters[0] == adapters[1]


async def test_a_server_restarted_after_the_end_stays_finished(
    make_folder: Any, start: Any, stop: Any, begin_training: Any
) -> None:
    """Plans, evaluations, counts and bytes outlive a restart, and no round opens again."""
    folder = make_folder({"run.rounds": 1})
    server = await start(folder)
    boards = [await server.board("ada"), await server.board("bo")]
    for board, task in zip(boards, await begin_training(boards), strict=True):
        await board.report(Report(kind="plan", text="nf4/fp32", values={"budget_bytes": 1e9}))
        await board.train(task)
        await board.report(Report(kind="evaluation", round=1, version=1, values={"loss": 3.0, "n_examples": 5.0}))
    assert (await boards[0].work(after=1)).kind == "evaluate"
    before = await server.status()

    await stop(server)
    server = await start(folder)
    after = await server.status()

    assert after["run"]["state"] == "finished"
    assert after["evaluations"] == before["evaluations"]
    for old, new in zip(before["boards"], after["boards"], strict=True):
        for key in ("device", "name", "plan", "format", "accepted", "bytes_up", "evaluation"):
            assert old[key] == new[key], key
        assert new["format"] == "nf4" and new["bytes_up"] > 1000


async def test_more_rounds_go_on_with_a_finished_run(
    make_folder: Any, start: Any, stop: Any, begin_training: Any
) -> None:
    """Raising run.rounds in run.toml and starting the server again opens the next round."""
    folder = make_folder({"run.rounds": 1})
    server = await start(folder)
    boards = [await server.board("ada"), await server.board("bo")]
    for board, task in zip(boards, await begin_training(boards), strict=True):
        await board.train(task)
    assert (await boards[0].work(after=1)).kind == "evaluate"
    await stop(server)
    folder.config.write_text(folder.config.read_text().replace("rounds = 1 ", "rounds = 3 "))

    server = await start(folder)
    boards[0].server = server

    assert (await boards[0].work(after=1)).spec.round == 2


async def test_a_server_that_stops_answers_its_long_polls(make_folder: Any, start: Any) -> None:
    """A board that waits is told to ask again, at once: it must not hold up a restart for the rest of its minute."""
    server = await start(make_folder())
    board = await server.board("ada")
    await server.board("bo")
    await board.send_profile()

    poll = asyncio.ensure_future(board.work(wait_s=30))
    await asyncio.sleep(0.05)
    assert not poll.done()
    server.run.polls.stop()

    assert (await asyncio.wait_for(poll, 5)).kind == "wait"
