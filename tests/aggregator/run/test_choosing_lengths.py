"""A server whose run.toml leaves lengths open: nothing is planned before it has chosen, and what it chose stays."""

from __future__ import annotations

from html import escape
from typing import Any

import pytest

from aggregator.errors import StateError
from aggregator.report.page import fragment
from aggregator.report.tables import status_text
from aggregator.run.setup import read_version
from tests.fakes.clock import FakeClock
from wire.messages import Report
from wire.run import RunInfo

OPEN = {"train.max_source_tokens": 0, "train.max_target_tokens": 0}
ONE_BOARD = {"rounds.min_devices": 1, "rounds.quorum": 1}


async def settings_of(board: Any) -> tuple[int, int]:
    settings = (await board.get("/v1/run", RunInfo)).settings
    return settings.max_source_tokens, settings.max_target_tokens


async def test_boards_wait_until_enough_have_told_their_lengths(
    make_folder: Any, start: Any, begin_training: Any
) -> None:
    """The first report is not enough for a run of two boards; after the second both profile, and know the lengths."""
    folder = make_folder(OPEN)
    server = await start(folder)
    ada, bo = await server.board("ada"), await server.board("bo")
    assert await settings_of(ada) == (0, 0)
    assert await ada.tell_lengths(100, 20) == 204

    assert (await ada.work(wait_s=0)).kind == "wait"
    facts = await server.status()
    assert facts["run"]["waiting_for"] == "boards' text lengths (1 of 2 boards have told theirs)"
    assert escape(facts["run"]["waiting_for"]) in fragment(facts) and facts["run"]["waiting_for"] in status_text(facts)
    assert server.run.open_round.since_s is None, "the deadline of profiling does not run yet"

    await bo.tell_lengths(300, 30)
    assert [(await board.work()).kind for board in (ada, bo)] == ["profile", "profile"]
    assert await settings_of(ada) == (320, 32)
    facts = await server.status()
    assert facts["run"]["waiting_for"] == "" and facts["run"]["warnings"] == []
    assert any("320 tokens and targets 32" in event for event in facts["events"])
    text = next(board["text"] for board in facts["boards"] if board["name"] == "bo")
    assert (text["n_examples"], text["source_p95"], text["target_p95"]) == (10, 300, 30)
    assert "300 + 30" in status_text(facts) and "300 + 30" in fragment(facts)

    await begin_training([ada, bo])
    stored = read_version(folder, None)
    assert stored.config.train == server.run.train and stored.run_id == server.run.terms.run_id


async def test_a_late_board_changes_nothing(make_folder: Any, start: Any, stop: Any) -> None:
    """Longer texts that come later are cut, on the board with a warning; another start keeps what was chosen."""
    folder = make_folder({**OPEN, **ONE_BOARD})
    server = await start(folder)
    ada = await server.board("ada")
    await ada.tell_lengths(100, 20)
    assert (await ada.work()).kind == "profile"

    late = await server.board("late")
    await late.tell_lengths(400, 100, n_examples=5)
    assert (await late.work()).kind == "profile" and await settings_of(late) == (128, 24)
    await stop(server)
    again = await start(folder)

    assert (again.run.train.max_source_tokens, again.run.train.max_target_tokens) == (128, 24)


async def test_a_restart_while_boards_are_awaited(make_folder: Any, start: Any, stop: Any, clock: FakeClock) -> None:
    """What was told before counts after it; the wait for the others begins anew."""
    folder = make_folder(OPEN)
    server = await start(folder)
    ada = await server.board("ada")
    await ada.tell_lengths(100, 20)
    deadline_s = server.run.config.rounds.profile_deadline_s
    clock.advance(deadline_s - 1)
    await server.run.step()
    await stop(server)

    again = await start(folder)
    clock.advance(deadline_s - 1)
    await again.run.step()
    assert not again.run.train.has_lengths
    clock.advance(1)
    await again.run.step()

    assert (again.run.train.max_source_tokens, again.run.train.max_target_tokens) == (128, 24)
    assert again.run.waiting_for == ""


async def test_one_length_may_be_given(make_folder: Any, start: Any) -> None:
    """Only what run.toml leaves open is chosen."""
    server = await start(make_folder({"train.max_target_tokens": 0, **ONE_BOARD}))
    ada = await server.board("ada")
    await ada.tell_lengths(100, 20)
    await ada.work()

    assert await settings_of(ada) == (192, 24)


async def test_a_run_with_given_lengths_waits_for_nobody(make_folder: Any, start: Any) -> None:
    """It takes reports, and begins without them, as it always did."""
    server = await start(make_folder())
    ada = await server.board("ada")

    assert (await ada.work()).kind == "profile"
    assert await settings_of(ada) == (192, 32)


async def test_a_run_that_cuts_most_texts_never_begins_silently(make_folder: Any, start: Any, stop: Any) -> None:
    """The journal, the page and the status say it, with the number to set; once, and again after a restart."""
    folder = make_folder()
    server = await start(folder)
    ada = await server.board("ada")
    for _ in range(2):
        await ada.tell_lengths(700, 20)

    facts = await server.status()
    (warning,) = facts["run"]["warnings"]
    assert "train.max_source_tokens = 192" in warning and "set it to 704" in warning
    assert facts["events"].count(warning) == 1
    assert escape(warning) in fragment(facts)
    assert f"WARNING: {warning}" in status_text(facts)
    await stop(server)
    assert (await start(folder)).run.warnings == [warning]


async def test_chosen_lengths_that_cut_most_are_told_of_too(make_folder: Any, start: Any) -> None:
    """A fleet of long documents: the longest that is chosen unasked is not enough."""
    server = await start(make_folder({**OPEN, **ONE_BOARD}))
    ada = await server.board("ada")
    await ada.tell_lengths(3000, 20)
    await ada.work()

    assert await settings_of(ada) == (512, 24)
    (warning,) = (await server.status())["run"]["warnings"]
    assert "train.max_source_tokens = 512" in warning and "set it to 3008" in warning


async def test_opening_lengths_of_a_run_that_has_boards(make_folder: Any, start: Any, stop: Any) -> None:
    """Who empties run.toml's lengths later: the boards' reports are there, and the next start chooses by them."""
    folder = make_folder()
    server = await start(folder)
    for name in ("ada", "bo"):
        await (await server.board(name)).tell_lengths(100, 20)
    await stop(server)
    text = folder.config.read_text()
    folder.config.write_text(text.replace("max_source_tokens = 192", "max_source_tokens = 0"))

    again = await start(folder)
    await again.run.step()

    assert (again.run.train.max_source_tokens, again.run.train.max_target_tokens) == (128, 32)


async def test_nonsense_is_refused(make_folder: Any, start: Any) -> None:
    """Lengths that no text has are a bad request, and count for nothing."""
    server = await start(make_folder(OPEN))
    ada = await server.board("ada")

    assert await ada.report(Report(kind="data", values={"source_p95": 3.0})) == 400
    assert server.run.boards.text_lengths() == [] and server.run.lengths_since_s is None


async def test_a_revoked_boards_texts_do_not_count(make_folder: Any, start: Any) -> None:
    """Its lengths are none of the fleet's any more."""
    server = await start(make_folder(OPEN))
    ada, bo = await server.board("ada"), await server.board("bo")
    await ada.tell_lengths(400, 20)
    server.opened.store.revoke_device(ada.device)
    server.run.refresh(server.opened.store.devices()[0])

    await bo.tell_lengths(40, 20)

    assert len(server.run.boards.text_lengths()) == 1 and (await bo.work(wait_s=0)).kind == "wait"


@pytest.mark.parametrize(
    ("key", "old", "new"), [("prefix", '"summarize: "', '"Q: "'), ("truncate_source", '"end"', '"start"')]
)
async def test_prefix_and_cut_are_fixed_once_a_board_is_there(
    make_folder: Any, start: Any, stop: Any, key: str, old: str, new: str
) -> None:
    """Before, they may be edited; after, half of the fleet would learn another task. Lengths may change."""
    folder = make_folder()
    await stop(await start(folder))
    folder.config.write_text(folder.config.read_text().replace(f"{key} = {old}", f"{key} = {new}"))
    server = await start(folder)
    ada = await server.board("ada")
    assert getattr((await ada.get("/v1/run", RunInfo)).settings, key) == new.strip('"')
    await stop(server)
    folder.config.write_text(folder.config.read_text().replace("max_source_tokens = 192", "max_source_tokens = 256"))
    await stop(again := await start(folder))
    assert again.run.train.max_source_tokens == 256

    folder.config.write_text(folder.config.read_text().replace(f"{key} = {new}", f"{key} = {old}"))
    with pytest.raises(StateError, match=f"train.{key} was"):
        await start(folder)
