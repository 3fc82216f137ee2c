"""A server whose merge rule is defended: what run.toml may say, whom people are told of, and what a restart keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregator.errors import ConfigError
from aggregator.merge.defences.defended import DEFENCES, Defended
from aggregator.merge.rules import RULES
from aggregator.report.page import fragment
from aggregator.report.tables import status_text
from aggregator.settings.keys import KEYS, template
from aggregator.settings.runfile import parse
from wire.messages import Receipt
from wire.tensors import unpack

NAMES = ("ada", "bob", "carl2", "dora22", "emil-22")
"""Of five lengths: a board of the tests draws its numbers by the length of its name."""


def config_of(values: dict[str, Any], tmp_path: Any) -> Any:
    needed = {"model.path": str(tmp_path), "model.digest": "0" * 64, "rounds.min_devices": 9, "rounds.quorum": 5}
    return parse(template({**needed, **values}), tmp_path / "run.toml")


def test_run_toml_explains_every_defence() -> None:
    """A line each, above the choice; none is the default."""
    text = template({"model.path": "x", "model.digest": "0" * 64})

    for name, defence in DEFENCES.items():
        assert any(line.startswith(f"#   {name} ") and defence.SUMMARY in line for line in text.splitlines())
    assert next(key.default for key in KEYS if key.path == "merge.defence") == "none"


@pytest.mark.parametrize("defence", DEFENCES)
@pytest.mark.parametrize("rule", RULES)
def test_an_impossible_mix_is_refused_before_there_is_a_run(rule: str, defence: str, tmp_path: Any) -> None:
    """Comparing number by number needs numbers that mean the same on every board; the hint names what does go."""
    values = {"merge.rule": rule, "merge.defence": defence, "train.rank": 8}
    if DEFENCES[defence].fits(RULES[rule].TRAITS):
        assert config_of(values, tmp_path).merge.defence == defence
        return

    with pytest.raises(ConfigError, match=f"merge.defence = {defence}") as caught:
        config_of(values, tmp_path)

    assert "multi-krum" in caught.value.hint and rule in caught.value.message
    assert defence in ("trimmed-mean", "median") and rule not in ("braid", "fresh", "delta", "ffa", "fedsvd")


@pytest.mark.parametrize("defence", DEFENCES)
def test_rounds_too_small_for_a_defence_are_refused(defence: str, tmp_path: Any) -> None:
    """A quorum in which it could tell nobody from the others; one more board is enough."""
    least = DEFENCES[defence].MIN_BOARDS
    assert config_of({"merge.defence": defence, "rounds.quorum": least}, tmp_path).rounds.quorum == least

    with pytest.raises(ConfigError, match=r"rounds\.quorum") as caught:
        config_of({"merge.defence": defence, "rounds.quorum": least - 1}, tmp_path)

    assert str(least) in caught.value.hint


@pytest.mark.parametrize("share", [0, 0.5, -0.1])
def test_half_of_the_boards_cannot_be_bad(share: float, tmp_path: Any) -> None:
    """No defence holds against a majority."""
    with pytest.raises(ConfigError, match=r"merge\.attackers"):
        config_of({"merge.attackers": share}, tmp_path)


async def test_a_board_that_a_defence_leaves_out_is_named(make_folder: Any, start: Any, begin_training: Any) -> None:
    """Its update is accepted, for nothing in it is impossible; log, page and status name it once the round closes, and
    the version is as without it."""
    folder = make_folder({"merge.defence": "multi-krum", "rounds.min_devices": 5, "rounds.quorum": 5})
    server = await start(folder)
    assert isinstance(server.run.terms.rule, Defended)
    boards = [await server.board(name) for name in NAMES]
    tasks = await begin_training(boards)

    for board, task in zip(boards, tasks, strict=True):
        assert await board.train(task, scale=0.04 if board is boards[2] else 0.01) == Receipt(accepted=True)
    task = await boards[0].work(after=1)

    facts = await server.status()
    assert any("multi-krum doubts carl2 in round 1: left it out" in event for event in facts["events"])
    assert "doubts carl2" in fragment(facts)
    part = (await boards[0].adapter(task.spec.version, 2)).parts[0]
    assert np.abs(unpack(part.frozen_b) @ unpack(part.frozen_a)).max() < 0.02


@pytest.mark.slow
async def test_a_restart_in_mid_round_gives_the_same_version(
    make_folder: Any, start: Any, stop: Any, begin_training: Any
) -> None:
    """What a defended round keeps of each board is read back from the stored updates."""
    adapters = []
    for name in ("whole", "cut"):
        folder = make_folder(
            {"merge.defence": "geometric-median", "rounds.min_devices": 3, "rounds.quorum": 3}, name=name
        )
        server = await start(folder)
        boards = [await server.board(board, install=i + 1) for i, board in enumerate(NAMES[:3])]
        tasks = await begin_training(boards)
        for board, task in zip(boards[:2], tasks, strict=False):
            assert (await board.train(task)).accepted
        if name == "cut":
            await stop(server)
            server = await start(folder)
            for board in boards:
                board.server = server
        assert (await boards[2].train(tasks[2])).accepted
        task = await boards[0].work(after=1)
        adapters.append((await boards[0].adapter(task.spec.version, 2)).parts)

    assert adapters[0] == adapters[1]


async def test_a_refused_update_is_answered_stored_and_shown(
    make_folder: Any, start: Any, stop: Any, begin_training: Any
) -> None:
    """One that is far larger than its cohort: the board, the database, `aggregator status` and the page have the same
    sentence, and a restarted server as well."""
    folder = make_folder({"rounds.min_devices": 5, "rounds.quorum": 5})
    server = await start(folder)
    boards = [await server.board(name) for name in NAMES]
    tasks = await begin_training(boards)
    for board, task in zip(boards[:4], tasks, strict=False):
        assert (await board.train(task)).accepted

    receipt = await boards[4].train(tasks[4], scale=5.0)

    assert not receipt.accepted and "too large" in receipt.reason
    (stored,) = [answer for answer in server.opened.store.updates(1) if not answer.accepted]
    assert (stored.device, stored.reason) == (boards[4].device, receipt.reason)
    for _ in range(2):
        facts = await server.status()
        assert next(b for b in facts["boards"] if b["name"] == NAMES[4])["reason"] == receipt.reason
        assert facts["rounds"][-1]["refused"] == 1
        assert f"{NAMES[4]}: last refusal: {receipt.reason}" in status_text(facts)
        assert receipt.reason in fragment(facts)
        await stop(server)
        server = await start(folder)


async def test_a_refused_profile_is_shown_too(make_folder: Any, start: Any, stop: Any) -> None:
    """After a restart as well: the board will not send another."""
    folder = make_folder()
    server = await start(folder)
    board = await server.board("ada")

    _, receipt = await board.send_profile(board.profile(scores=()))

    assert isinstance(receipt, Receipt) and "0 scores" in receipt.reason
    await stop(server)
    server = await start(folder)
    assert (await server.status())["boards"][0]["reason"] == receipt.reason


@pytest.mark.slow
async def test_who_answers_first_is_compared_with_the_round_before(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """A bad board needs not train, so it can always be the first: in the second round that no longer helps."""
    server = await start(make_folder({"rounds.min_devices": 5, "rounds.quorum": 5, "run.rounds": 3}))
    boards = [await server.board(name) for name in NAMES]
    for board, task in zip(boards, await begin_training(boards), strict=True):
        assert (await board.train(task)).accepted
    tasks = [await board.work(after=1) for board in boards]

    receipt = await boards[4].train(tasks[4], scale=5.0)

    assert not receipt.accepted and "change of the model is too large" in receipt.reason
    assert (await boards[0].train(tasks[0])).accepted
