"""No page and no message tells anybody to install a distribution that is not ours, but for a few that we stand on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # reads every text of the project

ROOT = Path(__file__).parents[2]
SUFFIXES = {".md", ".py", ".toml", ".yml", ".yaml", ".service", ".conf", ".json", ".sh", ".example", ""}
"""Of files that people read, or whose strings they are shown; Makefile and .ci/run have none."""

OURS = re.compile(r"(\.|braid-fl|\S*braid_fl-\S+\.whl|\S*….whl)(\[[a-z,]+\])?")
"""A clone (.), the distribution, or a wheel of it; each with extras."""

FOREIGN = re.compile(r"(torch|pip|pre-commit|peft|safetensors|huggingface_hub)(==[\w.]+)?")
"""What a reader may be told to install besides: torch has a build for every board, peft loads an export,
huggingface_hub fetches a base, and whoever has installed Braid without its extra need not find its wheel again."""

WITH_VALUE = {"-c", "--constraint", "--extra-index-url", "--index-url", "--find-links", "-r", "-d", "-w"}
NOT_OURS_AS_EXTRA = re.compile(r"(?<![\w.-])braid\[")


def installed(line: str) -> Iterator[str]:
    """What a line tells people to install: the words after `pip install` that are no options."""
    # A comma ends it in a sentence, but not between two extras.
    for rest in re.findall(r"pip3? (?:install|download) ((?:[^`)\"#&;,\n]|,(?=[a-z]))*)", line):
        words = iter(rest.split())
        for word in words:
            if word in WITH_VALUE:
                next(words, None)
            elif not word.startswith(("-", "$", '"$', "\\")):  # options, a script's variables, a line that goes on
                yield word.strip("'")


def strangers(text: str) -> list[str]:
    """Lines that name a distribution which is neither ours nor allowed."""
    return [
        line.strip()
        for line in text.splitlines()
        if NOT_OURS_AS_EXTRA.search(line)
        or any(not OURS.fullmatch(name) and not FOREIGN.fullmatch(name) for name in installed(line))
    ]


def texts() -> Iterator[Path]:
    """The repository's own text files, this one left out: it names what is wrong."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".github") for part in parts[:-1])
        ours = not hidden and parts[0] != "demo-run" and not parts[-1].startswith(".git")
        if ours and path.is_file() and path.suffix in SUFFIXES and path != Path(__file__).resolve():
            yield path


def test_no_text_installs_a_strangers_distribution() -> None:
    """Every line that installs something is looked at, and there are some."""
    lines = {path: path.read_text(encoding="utf-8", errors="replace") for path in texts()}

    assert {str(path.relative_to(ROOT)): found for path, text in lines.items() if (found := strangers(text))} == {}
    assert sum(bool(list(installed(line))) for text in lines.values() for line in text.splitlines()) > 8


@pytest.mark.parametrize(
    "line",
    [
        "pip install braid",
        "/opt/venv/bin/pip install -U 'braid[client]'",
        "`pip install --no-index --find-links wheels aggregator`",
        "torch is missing; install braid[quant]",
        "pip install '.[server]' braid,hub",
        "$venv/bin/python -m pip install --quiet $requirement braid",
    ],
)
def test_a_strangers_distribution_is_seen(line: str) -> None:
    """What stood in the pages once."""
    assert strangers(line) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "pip install '.[server]'   # in a clone",
        "pip install '.[server,hub]', and `pip install huggingface_hub`, which is the same",
        "pip install torch && pip install 'braid-fl[client]'",
        "pip install --constraint constraints.txt --editable '.[dev]'",
        "pip install 'braid_fl-0.1.0-py3-none-any.whl[client]'",
    ],
)
def test_ours_may_be_installed(line: str) -> None:
    """A clone, a wheel and the distribution, after torch."""
    assert strangers(line) == []


@pytest.mark.parametrize("program", ["edge-client", "aggregator"])
def test_programs_know_their_version_by_the_distributions_name(program: str) -> None:
    """A program asks the installed distribution for its version, by the name in pyproject.toml."""
    done = subprocess.run([Path(sys.executable).with_name(program), "--version"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert version("braid-fl") in done.stdout
