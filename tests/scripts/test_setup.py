"""What the set-up behind `make demo` and `make test` asks of pip: its Python only writes down its arguments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.host.torch_build.choose import builds
from tests.edge_client.host.torch_build.boards import BOARDS, FakeBoard

ROOT = Path(__file__).parents[2]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MAX_WAIT_S = 30
"""For a CPU index that does not answer; pip asks once, and again for each retry."""

X86 = next(build for build in builds() if build.name == "x86-64")
JETSON = next(build for build in builds() if build.name == "jetpack-6.1")


def set_up(folder: Path, board: FakeBoard) -> list[list[str]]:
    """The arguments of each `pip install` of a whole set-up on such a board, in turn."""
    root = board.lay_out(folder / "board")
    facts = f"--root {root} --machine {board.machine} --python {board.python} --glibc {board.glibc}"
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"""#!/bin/sh
if [ "$2" = edge_client.host.torch_build ]; then
    exec {sys.executable} "$@" {facts}
fi
printf "%s\\t" "$@" >> {folder}/calls
echo >> {folder}/calls
for last; do case $last in */tmp*) cp "$last" {folder}/constraints ;; esac; done
"""
    )
    python.chmod(0o755)

    done = subprocess.run(
        ["scripts/setup.sh", python, folder / "venv"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "is ready: torch" in done.stdout
    calls = [line.split("\t")[:-1] for line in (folder / "calls").read_text().splitlines()]
    return [call[3:] for call in calls if call[:3] == ["-m", "pip", "install"]]


@pytest.fixture
def installs(tmp_path: Path) -> list[list[str]]:
    """On an x86-64 machine."""
    return set_up(tmp_path, BOARDS["x86-64"])


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_torch_comes_first_in_its_build_for_processors(installs: list[list[str]], tmp_path: Path) -> None:
    """Alone, from the CPU index beside PyPI, at the pinned version, and without a long wait where that is away."""
    torch = installs[0]

    assert torch[-1] == X86.requirement
    assert "--no-deps" in torch
    assert value(torch, "--extra-index-url") == X86.index == CPU_INDEX
    assert int(value(torch, "--timeout")) * (1 + int(value(torch, "--retries"))) <= MAX_WAIT_S
    assert (tmp_path / "constraints").read_text().splitlines().count(X86.requirement) == 1


def test_the_rest_comes_from_pypi_at_pinned_versions(installs: list[list[str]]) -> None:
    """One more call, under the same constraint, that never asks the CPU index."""
    (rest,) = installs[1:]

    assert rest[-2:] == ["--editable", ".[dev]"]
    assert value(rest, "--constraint") == value(installs[0], "--constraint")
    assert CPU_INDEX not in rest


def test_an_arm_machine_gets_no_cuda_build(tmp_path: Path) -> None:
    """The same two commands on a Raspberry Pi: a build for processors from PyPI, and no constraint against it."""
    torch, rest = set_up(tmp_path, BOARDS["Pi 5"])

    assert torch[-1] == "torch==2.10.0"
    assert "--extra-index-url" not in torch + rest
    pins = [line for line in (tmp_path / "constraints").read_text().splitlines() if line.startswith("torch")]
    assert pins == ["torch==2.10.0"]


def test_a_jetson_gets_nvidias_wheel_and_what_it_needs(tmp_path: Path) -> None:
    """With NumPy below 2, which the constraints otherwise pin to 2."""
    torch, rest = set_up(tmp_path, BOARDS["Orin, JetPack 6.2"])

    assert torch[-1] == f"torch @ {JETSON.wheel}"
    assert rest[-len(JETSON.also) - 1 :] == [".[dev]", *JETSON.also]
    lines = (tmp_path / "constraints").read_text().splitlines()
    assert [line for line in lines if line.startswith(("numpy", "torch"))] == ["numpy<2"]


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
