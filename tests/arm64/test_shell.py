"""Commands, and what is told when they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from arm64.shell import NotPossibleError, run


def test_a_command_that_fails_shows_its_last_lines(tmp_path: Path) -> None:
    """And what to do, whether its output goes to a log or not."""
    command = ["sh", "-c", "echo first; echo last >&2; exit 4"]
    log = tmp_path / "log"

    for place in (None, log):
        with pytest.raises(NotPossibleError, match=r"(?s)ended with status 4:.*last") as caught:
            run(command, log=place, why="buy another")
        assert caught.value.hint == "buy another"
    assert log.read_text() == "first\nlast\n"


def test_a_command_answers(tmp_path: Path) -> None:
    """With its standard output, or in its log."""
    assert run(["echo", "yes"]) == "yes\n"
    assert run(["echo", "yes"], log=tmp_path / "log") == ""
    assert (tmp_path / "log").read_text() == "yes\n"
