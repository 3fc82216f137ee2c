"""The page of a report, parsed; and the command that writes it beside a running server."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aggregator.cli import cli
from aggregator.errors import NothingToExportError
from aggregator.report.whole_run import elements
from aggregator.report.whole_run.figures import figures
from aggregator.report.whole_run.page import CHAPTERS, page
from aggregator.report.whole_run.record import Record
from tests.aggregator.report.whole_run.conftest import TERMS, device, evaluation, record, round_of, update
from wire.messages import Report

EVIL = '</title><script>alert("x")</script>\u202e&<img src=x onerror=alert(1)>'
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Tree(HTMLParser):
    """Tags, attributes and text of a page; every tag that is opened must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def made(names: tuple[str, ...] = ("ada", "bo"), **others: Any) -> Record:
    """A run of two rounds of boards of these names."""
    return record(
        [device(name, bytes_up=1000, requests=7) for name in names],
        [round_of(1, 110.0, 210.0), round_of(2, 260.0, 300.0)],
        [update(name, number, 100.0 * number + 50) for name in names for number in (1, 2)],
        [
            evaluation(name, version, {"loss": 4.0 - version - place, "train_s": 10.0, "alone_loss": 2.0})
            for place, name in enumerate(names)
            for version in (1, 2)
        ],
        **others,
    )


def test_every_chapter_is_on_the_page_with_its_plots() -> None:
    """A loss over versions, gains over base and alone, the run's time and the boards': five plots."""
    tree = Tree(page(figures(made())))

    assert tree.tags.count("svg") == 5
    assert {"ada", "bo"} <= set(tree.texts)
    headings = [heading for heading, _ in CHAPTERS if heading != "Who counts how much?"]
    assert [text for text in tree.texts if text in headings] == headings
    assert "polyline" in tree.tags and "rect" in tree.tags


def test_fairness_has_a_chapter_where_it_is_on() -> None:
    tree = Tree(page(figures(made(terms=replace(TERMS, fairness=1.0)))))
    assert "Who counts how much?" in tree.texts and tree.tags.count("svg") == 6


def test_nothing_comes_from_elsewhere() -> None:
    """No script, no address but a name space, and no style that loads."""
    text = page(figures(made()))
    tree = Tree(text)
    assert "script" not in tree.tags and "url(" not in text and "@import" not in text
    assert {key for key, value in tree.attributes if "//" in (value or "")} == {"xmlns"}
    assert not {"src", "href", "onclick", "onload"} & {key for key, _ in tree.attributes}
    assert any(key == "content" and "default-src 'none'" in (value or "") for key, value in tree.attributes)


def test_hostile_names_are_text() -> None:
    """Names of boards and of the run, reasons, sentences of boards; what cannot be seen is gone."""
    hostile = made((EVIL, "bo"), terms=replace(TERMS, name=EVIL, base=EVIL))
    refused = replace(update("bo", 2, 280.0, accepted=False, reason=EVIL), received_at=281.0)
    text = page(figures(replace(hostile, arrivals=(*hostile.arrivals, refused))))
    tree = Tree(text)

    assert "script" not in tree.tags and "img" not in tree.tags and "\u202e" not in text
    assert sum("alert" in part for part in tree.texts) >= 5
    assert not any(key.startswith("on") for key, _ in tree.attributes)


def test_a_run_of_nobody_has_a_page() -> None:
    tree = Tree(page(figures(record())))
    assert "svg" not in tree.tags and "–" in tree.texts


def test_long_tables_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of thousands would make a page that no browser opens."""
    monkeypatch.setattr(elements, "MAX_ROWS", 3)
    text = page(figures(made(tuple(f"board-{number}" for number in range(5)))))
    assert "… and 2 more, which are in report.json" in text


def reported(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


async def test_beside_a_running_server(make_folder: Any, start: Any, begin_training: Any, tmp_path: Path) -> None:
    """Page and JSON, for their owner alone, of what boards have said so far; written again, they are replaced."""
    server = await start(make_folder({"train.targets": ["q"], "merge.max_rank": 1, "run.rounds": 3}))
    boards = [await server.board(name) for name in ("ada", "robin")]
    for board, task in zip(boards, await begin_training(boards), strict=True):
        await board.report(Report(kind="evaluation", round=1, version=1, values={"loss": 3.0, "train_s": 2.0}))
        await board.train(task, rank=1)
    await boards[0].work(after=1)
    folder = server.opened.folder

    assert reported(folder.root).exit_code == 0
    result = reported(folder.root, "--out", tmp_path / "new" / "out")
    found = json.loads((tmp_path / "new" / "out" / "report.json").read_text())
    Tree((folder.report / "report.html").read_text())

    assert result.exit_code == 0 and "1 of 3 rounds, 2 boards" in result.output
    assert stat.S_IMODE((folder.report / "report.html").stat().st_mode) == 0o600
    assert found["usefulness"]["loss"]["subjects"]["global"]["mean"] == 3.0
    assert found["efficiency"]["by_board"]["ada"] and found["time"]["by_board"]["ada"]["train_s"] == 2.0
    assert found["communication"]["requests"] > 4, "those of the round that was merged"
    assert "train_s" not in server.run.boards["ada"].losses[1], "a server's memory must not grow with what boards say"
    assert "ada" not in reported(folder.root, "--anonymous", "--json").output


def test_what_cannot_be_reported(make_folder: Any, tmp_path: Path) -> None:
    """No folder of a server, a run that was never started, and a place that cannot be written: a sentence each."""
    folder = make_folder()
    (tmp_path / "file").write_text("")
    for arguments, words in (
        ((tmp_path / "nowhere",), "not a server's folder"),
        ((folder.root,), "was never started"),
    ):
        result = reported(*arguments)
        assert result.exception is not None and words in str(result.exception)
    server_folder = folder.root
    from aggregator.store.store import Store

    Store(folder.database).close()
    result = reported(server_folder, "--out", tmp_path / "file" / "out")
    assert isinstance(result.exception, NothingToExportError) and "cannot be written" in str(result.exception)
