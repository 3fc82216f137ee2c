"""What the set-up behind `make demo` and `make test` asks of pip: its Python only writes down its arguments."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MAX_WAIT_S = 30
"""For a CPU index that does not answer; pip asks once, and again for each retry."""


@pytest.fixture
def installs(tmp_path: Path) -> list[list[str]]:
    """The arguments of each `pip install` of a whole set-up, in turn."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nprintf "%s\\t" "$@" >> {tmp_path}/calls\necho >> {tmp_path}/calls\n')
    python.chmod(0o755)

    done = subprocess.run(
        ["scripts/setup.sh", python, tmp_path / "venv"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "is ready: torch" in done.stdout
    calls = [line.split("\t")[:-1] for line in (tmp_path / "calls").read_text().splitlines()]
    return [call[3:] for call in calls if call[:3] == ["-m", "pip", "install"]]


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_torch_comes_first_in_its_build_for_processors(installs: list[list[str]]) -> None:
    """Alone, from the CPU index beside PyPI, at the pinned version, and without a long wait where that is away."""
    torch = installs[0]

    assert torch[-1] == "torch"
    assert "--no-deps" in torch
    assert value(torch, "--extra-index-url") == CPU_INDEX
    assert value(torch, "--constraint") == "constraints.txt"
    assert int(value(torch, "--timeout")) * (1 + int(value(torch, "--retries"))) <= MAX_WAIT_S
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch")]
    assert [pin.partition("==")[0] for pin in pins] == ["torch"]


def test_the_rest_comes_from_pypi_at_pinned_versions(installs: list[list[str]]) -> None:
    """One more call, under the same constraint, that never asks the CPU index."""
    (rest,) = installs[1:]

    assert rest[-2:] == ["--editable", ".[dev]"]
    assert value(rest, "--constraint") == "constraints.txt"
    assert CPU_INDEX not in rest


def test_make_sets_up_with_the_python_it_is_given() -> None:
    """`make demo` and `make test` begin with the script."""
    for goal in ("demo", "test"):
        done = subprocess.run(
            ["make", "--no-print-directory", "--dry-run", "--always-make", goal, "PYTHON=python3.13", "VENV=elsewhere"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout.splitlines()[0] == "scripts/setup.sh python3.13 elsewhere"
