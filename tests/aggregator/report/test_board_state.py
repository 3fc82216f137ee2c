"""Boards that gave up, were stopped or finished, and boards of one name: what the server shows of each."""

from __future__ import annotations

import re
from typing import Any

import pytest

from aggregator.report.board_state import how_it_counts
from aggregator.report.page import fragment
from aggregator.report.tables import rounds_text, status_text
from aggregator.report.text_cells import took_text
from wire.messages import Report


def ended(status: float, text: str) -> Report:
    return Report(kind="ended", text=text, values={"exit_status": status})


def row(page: str, name: str) -> str:
    """The page's row of a board, with the note below it."""
    rows: list[str] = re.findall(r"<tr.*?</tr>(?:<tr><td class=\"note\".*?</tr>)?", page)
    return next(row for row in rows if f"<bdi>{name}</bdi>" in row)


@pytest.fixture
async def server(make_folder: Any, start: Any) -> Any:
    return await start(make_folder())


@pytest.mark.parametrize(("opened_at", "took"), [(1000.0, "1 min 40 s"), (1100.0, "0 s"), (9e9, "0 s")])
def test_a_round_took_no_less_than_no_time(opened_at: float, took: str) -> None:
    """Whatever the clock did while it was open: in the terminal and on the page."""
    row = {"round": 1, "state": "merged", "version": 1, "accepted": 2, "refused": 0, "stale": 0, "reason": "quorum"}
    closed = {**row, "opened_at": opened_at, "closed_at": 1100.0}

    assert took_text(closed) == took and took_text({**closed, "closed_at": None}) == ""
    assert f"  {took}  " in rounds_text({"evaluations": [], "rounds": [closed]})


class TestABoardThatLeaves:
    async def test_is_shown_with_its_reason_until_it_comes_back(self, server: Any) -> None:
        """On the page, in the terminal and in JSON, with since when; its next question ends it."""
        ada, _ = await server.board("ada"), await server.board("bo")
        assert await ada.report(ended(6, "no plan fits: <b>2 GiB</b> are needed")) == 204

        facts = await server.status()
        seen, other = facts["boards"]
        assert seen["ended"]["status"] == 6 and seen["ended"]["reason"].startswith("no plan fits")
        assert seen["ended"]["at"] > 1e9 and 0 <= seen["ended"]["ago_s"] < 60
        assert not seen["live"] and other["live"] and other["ended"] is None
        assert "ada: gave up: no plan fits: <b>2 GiB</b> are needed (status 6)" in status_text(facts)
        shown = row(fragment(facts), "ada")
        assert re.search(r'<span class="bad">gave up [^<]+ ago</span>', shown)
        assert "it gave up: no plan fits: &lt;b&gt;2 GiB" in shown
        assert any("ada gave up with status 6: no plan fits" in event for event in facts["events"])

        await ada.work(wait_s=0)

        facts = await server.status()
        assert facts["boards"][0]["ended"] is None and facts["boards"][0]["live"]
        assert "gave up:" not in status_text(facts) and "ada is back" in facts["events"]

    async def test_is_remembered_by_a_server_that_is_restarted(self, make_folder: Any, start: Any, stop: Any) -> None:
        """And so is that it came back."""
        folder = make_folder()
        server = await start(folder)
        ada, bo = await server.board("ada"), await server.board("bo")
        await ada.report(ended(4, "its text cannot be used"))
        await bo.report(ended(5, "the base is not the run's"))
        await bo.work(wait_s=0)
        before = (await server.status())["boards"][0]["ended"]
        await stop(server)

        again = await start(folder)

        first, second = (await again.status())["boards"]
        assert {**first["ended"], "ago_s": 0} == {**before, "ago_s": 0}
        assert second["ended"] is None

    async def test_is_waited_for_only_if_it_was_stopped(self, server: Any) -> None:
        """Whoever cannot go on holds no round open; a service that restarts is back in a moment."""
        boards = [await server.board(name) for name in ("ada", "bo", "cy")]

        await boards[0].report(ended(10, "its state folder cannot be written"))
        await boards[1].report(ended(0, "it was asked to stop"))

        live = server.run.boards.live(server.run.clock())
        assert live == {boards[1].device, boards[2].device}
        facts = await server.status()
        assert "quiet" in row(fragment(facts), "bo") and "bad" not in row(fragment(facts), "bo")
        assert "stopped" in status_text(facts)

    @pytest.mark.parametrize("status", [-1.0, 0.5, 256.0, 1e300])
    async def test_cannot_break_the_page_with_its_status(self, server: Any, status: float) -> None:
        """What is no exit status counts as a bug."""
        board = await server.board("ada")

        await board.report(ended(status, "‮reversed\x1b[2J\nforged line"))

        facts = await server.status()
        assert facts["boards"][0]["ended"]["status"] == 1
        for text in (status_text(facts), fragment(facts)):
            assert "‮" not in text and "\x1b" not in text and "\nforged" not in text


async def finish(server: Any, begin_training: Any, names: tuple[str, str]) -> list[Any]:
    """Two boards through both rounds of the run, and their evaluations of the result."""
    boards = [await server.board(name, install=i + 1) for i, name in enumerate(names)]
    tasks = await begin_training(boards)
    for _ in range(2):
        for board, task in zip(boards, tasks, strict=True):
            await board.train(task)
        tasks = [await board.work(after=task.spec.round) for board, task in zip(boards, tasks, strict=True)]
    for board, task in zip(boards, tasks, strict=True):
        assert task.kind == "evaluate"
        values = {"loss": 2.0, "n_examples": 9.0}
        await board.report(Report(kind="evaluation", round=2, version=task.spec.version, values=values))
    return boards


class TestARunThatIsOver:
    async def test_says_so_and_its_boards_are_not_red(self, server: Any, clock: Any, begin_training: Any) -> None:
        """Boards that have evaluated the result end, are silent for ever, and have done all that was asked."""
        await finish(server, begin_training, ("ada", "bo"))
        clock.now += 3600.0

        facts = await server.status()

        text, page = status_text(facts), fragment(facts)
        assert "the run is over: all 2 rounds are done, version 3 is the result" in text
        assert "The run is over" in page and "needed" not in text.splitlines()[0] + page
        for name in ("ada", "bo"):
            assert '<span class="good">finished</span>' in row(page, name) and 'class="bad"' not in row(page, name)
        assert [board["finished"] for board in facts["boards"]] == [True, True]
        assert "silent" not in text and text.count("finished") == 2

    async def test_boards_of_one_name_are_told_apart(self, server: Any, begin_training: Any) -> None:
        """Their ids stand behind the name in tables, notes, events and beside the worst loss."""
        _, second = await finish(server, begin_training, ("nano", "nano"))
        await second.report(Report(kind="event", text="memory ran short"))
        for version in (2, 3):
            values = {"loss": 9.0, "n_examples": 9.0}
            await second.report(Report(kind="evaluation", version=version, values=values))

        facts = await server.status()

        text = status_text(facts)
        assert second.device == "nano-2"
        assert "nano (nano-2): last event: memory ran short" in text and "worst (nano (nano-2))" in text
        assert re.search(r"^nano \(nano\) .*^nano \(nano-2\) ", text, re.MULTILINE | re.DOTALL)
        assert "worst (nano (nano-2))" in rounds_text(facts)
        assert any(event.startswith("nano (nano-2): memory ran short") for event in facts["events"])
        for device in ("nano", "nano-2"):
            assert f'nano</bdi> <span class="quiet">{device}</span>' in fragment(facts)

    async def test_a_name_alone_needs_no_id(self, server: Any) -> None:
        """Nor one whose only namesake took another name."""
        first, _ = await server.board("nano", install=1), await server.board("nano", install=2)
        assert server.run.boards.label(server.run.boards[first.device]) == "nano (nano)"

        await server.board("orin", install=2)

        assert server.run.boards.label(server.run.boards[first.device]) == "nano"


class TestNamesOfAllKinds:
    @pytest.mark.parametrize("name", ["a‮b", "نانو", "板子", "é" * 200, "z​w", "<&\"'>", "x" * 200])
    async def test_neither_table_nor_page_is_bent_by_one(self, server: Any, name: str) -> None:
        """Marks that turn the writing direction are not shown; wide letters keep the columns aligned."""
        await server.board(name)
        await server.board("plain")

        facts = await server.status()

        text, page = status_text(facts), fragment(facts)
        assert "‮" not in text + page and "​" not in text + page and "<&" not in page
        lines = text.splitlines()
        header = next(line for line in lines if line.startswith("board"))
        assert all(len(line) < 300 for line in lines) and header.index("state") < 70


@pytest.mark.parametrize(
    ("by_loss", "by_strands", "words"),
    [
        (False, False, "36 of the 40 examples that it claims"),
        (True, False, "36 of the 40 examples that its claim and its loss make"),
        (False, True, "36 of the 40 examples that its claim and its strands make"),
        (True, True, "36 of the 40 examples that its claim and its loss and its strands make"),
    ],
)
def test_a_bounded_board_is_told_by_what_it_was_weighed(by_loss: bool, by_strands: bool, words: str) -> None:
    weighed = {"claims": 40.0, "counts_as": 36.0, "is_by_loss": by_loss, "is_by_strands": by_strands}

    assert words in how_it_counts(weighed)
