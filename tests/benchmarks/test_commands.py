"""Every benchmark is a command that says what it measures, at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__main__")
    for path in (ROOT / "benchmarks").rglob("*.py")
    if "ArgumentParser(" in (text := path.read_text()) + ("ArgumentParser(" if "study_parser(" in text else "")
    and '__name__ == "__main__"' in text
)


def test_there_are_commands() -> None:
    assert {"benchmarks.merge_rules", "benchmarks.training_speed", "benchmarks.merge_speed.upload"} <= set(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_torch(command: str) -> None:
    """--help of each command names the command, and loads no tensor library to say so."""
    code = (
        f"import runpy, sys; sys.argv = ['{command}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{command}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert re.search(r"^usage: ", done.stdout)


def test_commands_of_the_docs_exist() -> None:
    """Whatever page says `python -m benchmarks.…` names a command."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {match for page in pages for match in re.findall(r"python -m (benchmarks[\w.]*\w)", page.read_text())}
    assert len(named) > 10
    assert named <= set(COMMANDS)
