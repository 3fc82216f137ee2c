"""What README and the guides show is run: shell and Python blocks for real, console lines as far as one machine can.

```sh and ```python blocks of a page run one after another in one empty folder, with the page's state. ```console blocks
show other machines, or what a command prints: each line of theirs that calls a program of ours must be one that the
program understands.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from scripts.commands_docs import PROGRAMS
from tests.fakes.hub import FakeHub, loopback_hub
from tests.fakes.models.flan_t5 import SMALL, hub_environment, tiny_small_repo

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
TIME_LIMIT_S = 300


def blocks(page: Path, *kinds: str) -> list[str]:
    """The texts of a page's fenced blocks of these kinds, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [match["text"] for match in found if match["kind"] in kinds]


def commands(page: Path) -> Iterator[list[str]]:
    """Every call of one of our programs in a page's shell and console blocks, as words."""
    for text in blocks(page, "sh", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if not line.startswith("  ") else []
            if words and Path(words[0]).name in PROGRAMS:
                yield [Path(words[0]).name, *words[1:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page: Path) -> None:
    """No page shows a command, a flag or an argument that the program does not have."""
    for program, *arguments in commands(page):
        command, rest = PROGRAMS[program], [word for word in arguments if word not in ("…", "...")]
        name = program
        context = click.Context(command, info_name=name, **command.context_settings)
        while isinstance(command, click.Group) and rest:
            name = f"{name} {rest[0]}"
            child = command.get_command(context, rest[0])
            assert child is not None, f"{page.name} shows {name}, which does not exist"
            command, rest = child, rest[1:]
            # With what it has of its parent: click keeps the help option that a command is first asked for.
            context = click.Context(command, info_name=name, parent=context)
        parser = command.make_parser(context)
        try:
            parser.parse_args(list(rest))
        except click.UsageError as error:
            pytest.fail(f"{page.name} shows `{name} {shlex.join(rest)}`: {error.format_message()}")


RUNNABLE = [page for page in PAGES if any("make " not in text for text in blocks(page, "sh", "python"))]


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    """The hub that the pages name: google/flan-t5-small, in few dimensions."""
    with loopback_hub({SMALL: tiny_small_repo()}) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path, hub: FakeHub) -> None:
    """A reader who types a page's commands, from top to bottom, sees each succeed."""
    script = ["set -euo pipefail"]
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["kind"] == "sh" and "make " not in match["text"]:
            script.append(match["text"])
        elif match["kind"] == "python":
            script.append(f"python - <<'END_OF_BLOCK'\n{match['text']}END_OF_BLOCK")
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, **paths, "HOME": str(tmp_path), **hub_environment(hub, tmp_path / "huggingface")},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
