"""Every key of run.toml, every setting of a board and every flag stands in the guide, which is written from the
code."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from aggregator.settings.keys import KEYS
from scripts import commands_docs, settings_docs
from scripts.generated_page import bring_up_to_date, with_section

PAGE = "# ARM\n\nWords.\n<!-- generated: cores -->\nold\n<!-- end: cores -->\nMore words.\n"


def test_every_key_of_run_toml_has_a_row() -> None:
    page = settings_docs.settings_page()
    for key in KEYS:
        assert f"| `{key.path}` |" in page
        assert key.help.replace("|", r"\|") in page


def test_every_setting_of_a_board_has_a_row() -> None:
    page = settings_docs.settings_page()
    for name in commands_docs.SETTINGS:
        assert f"| `{name}` |" in page


def every_option(command: click.Command, name: str) -> list[tuple[str, str]]:
    """(command, longest flag) of all visible options below a command."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        children = [(child, command.get_command(context, child)) for child in command.list_commands(context)]
        return [row for child, inner in children if inner is not None for row in every_option(inner, f"{name} {child}")]
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    return [(name, max(option.opts, key=len)) for option in options]


def test_every_flag_has_a_row() -> None:
    sections = {
        part.partition("\n")[0]: part
        for part in commands_docs.commands_page().replace("\n### ", "\n## ").split("\n## ")
    }
    rows = [row for name, program in commands_docs.PROGRAMS.items() for row in every_option(program, name)]
    assert len(rows) > 60
    for name, flag in rows:
        assert flag in sections[name], f"{name} {flag} is not documented"


def test_the_pages_in_the_repository_are_of_this_code() -> None:
    assert settings_docs.main(["--check"]) == 0
    assert commands_docs.main(["--check"]) == 0


def test_a_page_that_differs_is_named_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "guide" / "page.md"
    assert bring_up_to_date(page, "new", "make docs", ["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
    assert not page.exists()

    assert bring_up_to_date(page, "new", "make docs", []) == 0
    assert bring_up_to_date(page, "new", "make docs", ["--check"]) == 0


def test_a_section_is_replaced_and_nothing_else() -> None:
    """The same again changes nothing."""
    once = with_section(PAGE, "cores", "new\n")

    assert once == PAGE.replace("old", "new")
    assert with_section(once, "cores", "new") == once


def test_a_page_without_the_section_is_an_error() -> None:
    """What was measured would be lost silently."""
    with pytest.raises(ValueError, match="no section 'memory'"):
        with_section(PAGE, "memory", "new")
