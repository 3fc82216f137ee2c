"""Manual pages and completion: every command and flag of the programs is in them, in what man and shells can read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from scripts.commands_docs import PROGRAMS
from scripts.deb.contents import setup_help
from scripts.deb.man_pages import COMPLETIONS, completion, man_page, setup_page
from scripts.deb.packages import PACKAGES


@pytest.mark.parametrize("name", [package.program for package in PACKAGES])
def test_a_page_has_every_command_and_flag(name: str) -> None:
    """Those of `edge-client`, too, which loads a command when it is asked for."""
    program = PROGRAMS[name]
    assert isinstance(program, click.Group)
    page = man_page(name, program, "1.2", "nothing").replace("\\-", "-")

    context = click.Context(program)
    for command in program.list_commands(context):
        assert f'.SS "{name} {command}' in page
        child = program.get_command(context, command)
        assert child is not None
        flags = [flag for option in child.params if isinstance(option, click.Option) for flag in option.opts]
        assert all(flag in page for flag in flags)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed here")
@pytest.mark.parametrize("name", [*(package.program for package in PACKAGES), "edge-client-setup"])
def test_a_page_is_clean_for_man(name: str) -> None:
    """groff has nothing to say, and words that look like its own are shown."""
    page = man_page(name, PROGRAMS[name], "1", "x") if name in PROGRAMS else setup_page(name, "x", setup_help(), "1")

    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", "-k"], input=page, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "OPTIONS" in done.stdout
    assert "--" in done.stdout


def test_text_cannot_give_orders_to_roff() -> None:
    """A line of help that begins with a dot, a quote or has a backslash is text."""

    @click.command()
    def shout() -> None:
        """.so /etc/passwd

        'quoted

        a\\b
        """

    page = man_page("shout", shout, "1", "x")

    assert "\n\\&.so /etc/passwd\n" in page
    assert "\n\\&'quoted\n" in page
    assert "\na\\eb\n" in page


@pytest.mark.parametrize("shell", COMPLETIONS)
def test_completion_asks_the_program(shell: str, tmp_path: Path) -> None:
    """The script is the shell's, and the variable in it is one that the program answers."""
    script = completion(shell, "edge-client", PROGRAMS["edge-client"])
    assert "_EDGE_CLIENT_COMPLETE" in script

    cursor = "" if shell == "fish" else "1"  # fish gives the word, the others its number
    words = {"COMP_WORDS": "edge-client ", "COMP_CWORD": cursor}
    env = {**os.environ, "_EDGE_CLIENT_COMPLETE": f"{shell}_complete", **words}
    done = subprocess.run(
        [sys.executable, "-c", "from edge_client.cli.main import main; main()"], env=env, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout
