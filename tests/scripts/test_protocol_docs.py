"""docs/concepts/protocol.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import wire.limits
from scripts.protocol_docs import BLOCKS, PROTOCOL_PAGE, limits_table, main, message_tables, render
from wire.codec import CONTENT_TYPE
from wire.rounds import BOARD, ROUND, RUN


def test_tables_have_not_drifted(capsys: pytest.CaptureFixture[str]) -> None:
    """The committed page is what `python -m scripts.protocol_docs` would write."""
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_drift_is_found_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed table fails the check with the command to run; without --check it is rewritten."""
    page = tmp_path / "protocol.md"
    page.write_text(
        PROTOCOL_PAGE.read_text(encoding="utf-8").replace("| `MAX_DEPTH` | 8 |", "| `MAX_DEPTH` | 9 |"), "utf-8"
    )

    assert main(["--check"], page) == 1
    assert "run `python -m scripts.protocol_docs`" in capsys.readouterr().err
    assert main([], page) == 0
    assert page.read_text(encoding="utf-8") == PROTOCOL_PAGE.read_text(encoding="utf-8")


def test_a_lost_mark_is_an_error() -> None:
    """A page that lacks a block, or has one that nobody writes, is not passed over."""
    with pytest.raises(ValueError, match="blocks of the page are"):
        render("<!-- generated: limits -->\n<!-- end: limits -->")


def test_nothing_is_left_out() -> None:
    """Every limit has its reason, every field of every message its line, every transition its state and event."""
    limits, messages = limits_table(), message_tables()
    tables = "\n".join(BLOCKS[f"{name}-states"]() for name in ("run", "round", "board"))

    for name in vars(wire.limits):
        if name.isupper():
            assert re.search(rf"^\| `{name}` \| [\d.,]+ \| \w.+ \|$", limits, re.MULTILINE), name
    assert "| `install_id` | string, `^[0-9a-f]{32}\\Z` |  |" in messages
    for table in (RUN, ROUND, BOARD):
        for (state, event), (following, why) in table.items():
            assert re.search(
                rf"^\|.*`{state.value}`.*\| {event.value} \| `{following.value}` \| {re.escape(why)} \|$", tables, re.M
            )


def test_hand_written_facts() -> None:
    """The page's prose names the content type, every call of a board, every code of a Refusal, and Ω's example."""
    text = PROTOCOL_PAGE.read_text(encoding="utf-8")

    for fact in (CONTENT_TYPE, "braid-projection-1 SEED NAME R M", "`++-+-`,\n`-++--`, `-++++`"):
        assert fact in text
    prose = text.split("## Messages")[0]
    codes = re.search(r"\| `code` \| (.+?) \|", message_tables())
    assert codes is not None
    for code in codes[1].split(", "):
        assert f"| {code} |" in prose or code in prose
    for call in ("devices", "run", "work", "adapters", "uploads", "reports", "base"):
        assert f"/v1/{call}" in prose
