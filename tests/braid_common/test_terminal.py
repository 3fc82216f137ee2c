"""Texts for any terminal: encodable in every encoding, readable where it can be, and still JSON."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid_common.terminal import STAND_INS, moves_cursor, run_on_any_terminal, typed, use_any_terminal

ENCODINGS = ["ascii", "latin-1", "cp1252", "iso8859-15", "koi8-r", "gb2312", "utf-8"]


def written(text: str, encoding: str) -> bytes:
    """The bytes that a prepared standard output of that encoding makes of a text."""
    before, raw = sys.stdout, io.BytesIO()
    sys.stdout = io.TextIOWrapper(raw, encoding=encoding)
    try:
        use_any_terminal()
        sys.stdout.write(text)
        sys.stdout.flush()
        return raw.getvalue()
    finally:
        sys.stdout.detach()
        sys.stdout = before


@given(text=st.text(st.characters()), encoding=st.sampled_from(ENCODINGS))
def test_every_text_can_be_written_in_every_encoding(text: str, encoding: str) -> None:
    """Lone surrogates too, which stand for bytes of a file's name."""
    written(text, encoding).decode(encoding)


@given(
    value=st.recursive(st.text(st.characters(exclude_categories=["Cs"])), st.lists), encoding=st.sampled_from(ENCODINGS)
)
def test_json_stays_json(value: Any, encoding: str) -> None:
    """Written by a library that leaves signs as they are; only our own stand-ins differ from what was meant."""
    text = json.dumps(value, ensure_ascii=False)

    found = json.loads(written(text, encoding).decode(encoding))

    def plain(item: Any) -> Any:
        return [plain(part) for part in item] if isinstance(item, list) else _with_stand_ins(item)

    assert plain(found) == plain(value)


def _with_stand_ins(text: str) -> str:
    return "".join(STAND_INS.get(sign, sign) for sign in text)


def test_signs_of_our_own_have_stand_ins() -> None:
    """Where the encoding has the sign itself, it stays."""
    assert written("→ 3 × 4 · 1–2 … µs █░", "ascii") == b"-> 3 x 4 | 1-2 ... us #."
    assert written("→ 3 × 4 · é", "latin-1") == "-> 3 × 4 · é".encode("latin-1")
    assert written("→ é 🤖", "ascii") == b"-> \\u00e9 \\ud83e\\udd16"
    assert written("→ é 🤖", "utf-8").decode() == "→ é 🤖"


def test_what_a_locale_could_not_read_was_utf_8() -> None:
    """Python keeps such bytes as surrogates; what is no UTF-8 either is replaced."""
    assert typed("板".encode().decode("ascii", "surrogateescape")) == "板"
    assert typed("\udcff") == "\ufffd" and typed("büro") == "büro"


@pytest.mark.parametrize(("term", "is_live"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, term: str, is_live: bool) -> None:
    """TERM=dumb is what editors and serial consoles say of themselves."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", term)

    assert moves_cursor(Terminal()) is is_live and not moves_cursor(io.StringIO())


@pytest.mark.parametrize(("end", "status"), [(None, 0), (3, 3), ("words", 1)])
def test_a_command_that_exits_keeps_its_status(end: Any, status: int) -> None:
    """As `sys.exit` has it."""

    def command() -> int:
        raise SystemExit(end)

    assert run_on_any_terminal(command) == status
