"""Which torch a board gets: every row of the table for a board of its kind, and sentences where none serves."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from edge_client.host.torch_build.__main__ import constraints, main
from edge_client.host.torch_build.choose import NoBuildError, builds, choose, remedy, trouble
from edge_client.host.torch_build.facts import BoardFacts, cpu_features, numbers, read_facts
from tests.edge_client.host.torch_build.boards import BOARDS, V80, V82, FakeBoard

ROOT = Path(__file__).parents[4]

EXPECTED = {
    "Pi Zero 2 W": "armv8.0",
    "Pi 3": "armv8.0",
    "Pi 4": "armv8.0",
    "Pi 5": "aarch64",
    "Orin, JetPack 6.0": "jetpack-6.0",
    "Orin, JetPack 6.2": "jetpack-6.1",
    "Orin, JetPack 7.2": "jetpack-7",
    "Thor, JetPack 7.0": "jetpack-7",
    "Xavier, JetPack 5": "aarch64",
    "generic aarch64": "aarch64",
    "x86-64": "x86-64",
}


def facts_of(board: FakeBoard, root: Path) -> BoardFacts:
    return read_facts(
        board.lay_out(root), machine=board.machine, python=numbers(board.python), glibc=numbers(board.glibc)
    )


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_gets_its_build(name: str, tmp_path: Path) -> None:
    """By release file, processor features, Python and C library; what is chosen is not known to fail there."""
    facts = facts_of(BOARDS[name], tmp_path)

    build = choose(facts)

    assert build.name == EXPECTED[name]
    assert trouble(facts, build.version) == ""
    assert facts.model == BOARDS[name].model


def test_every_row_is_for_some_board() -> None:
    """No row is shadowed by one above it."""
    assert {build.name for build in builds()} == set(EXPECTED.values())


def test_a_board_of_the_old_instructions_gets_no_torch_that_dies_there(tmp_path: Path) -> None:
    """The pin of the tests and 2.10 are known to fail on a Pi 4, and not on a Pi 5."""
    pi4, pi5 = facts_of(BOARDS["Pi 4"], tmp_path / "4"), facts_of(BOARDS["Pi 5"], tmp_path / "5")

    assert "imported" in trouble(pi4, "2.10.0")
    assert "several threads" in trouble(pi4, "2.13.0+cu130")
    assert [trouble(pi4, version) for version in ("2.6.0", "2.9.1+cpu")] == ["", ""]
    assert trouble(pi5, "2.13.0") == trouble(pi5, "2.10.0") == ""
    assert remedy(pi4).endswith("pip install torch==2.9.1")


def test_a_jetson_is_told_which_python_nvidias_build_is_for(tmp_path: Path) -> None:
    """Another Python gets a sentence, not a build without the GPU."""
    facts = facts_of(replace(BOARDS["Orin, JetPack 6.2"], python="3.12"), tmp_path)

    with pytest.raises(NoBuildError, match=r"not made for Python 3\.12") as caught:
        choose(facts)
    assert "Python 3.10" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machine": "armv7l"}, "no build of torch for armv7l"),
        ({"glibc": "2.27"}, "needs glibc 2.28; this system has glibc 2.27"),
        ({"python": "3.9"}, r"not made for Python 3\.9"),
        ({"python": "3.15"}, r"not made for Python 3\.15"),
    ],
)
def test_a_board_that_no_build_serves_is_told_why(
    changes: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an error, and as a status with two lines for scripts."""
    board = replace(BOARDS["Pi 4"], **changes)
    facts = facts_of(board, tmp_path)

    with pytest.raises(NoBuildError, match=message):
        choose(facts)

    flags = ["--root", str(tmp_path), "--machine", board.machine, "--python", board.python, "--glibc", board.glibc]
    assert main(flags) == 3
    assert capsys.readouterr().err.count("\n") == 2
    assert remedy(facts)


def test_the_weakest_core_counts(tmp_path: Path) -> None:
    """Where kinds of cores differ, a feature that one lacks is not there; without any line nothing is known."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"Features : {V82}\n\nFeatures : {V80}\n")

    assert cpu_features(tmp_path) == set(V80.split())
    assert cpu_features(tmp_path / "nowhere") == frozenset()
    assert choose(BoardFacts("aarch64", frozenset(), (3, 11), (2, 36))).name == "aarch64"


def test_the_tests_own_pin_is_the_tables(tmp_path: Path) -> None:
    """On x86-64 the table and constraints.txt name one version; on a board the constraints follow the table."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {board: choose(facts_of(BOARDS[board], tmp_path / board)) for board in ("x86-64", "Orin, JetPack 6.2")}

    assert f"torch=={pins['x86-64'].version}" in lines
    assert sorted(constraints(lines, pins["x86-64"])) == sorted(lines)
    jetson = constraints(lines, pins["Orin, JetPack 6.2"])
    named = [line for line in jetson if line.startswith(("torch=", "numpy", "nvidia-cusparselt"))]
    assert named == ["numpy<2", "nvidia-cusparselt-cu12==0.6.3"], "NVIDIA's file is taken by its address alone"


def test_braid_takes_every_build_of_the_table() -> None:
    """NVIDIA's 2.4.0a0 included, which `torch>=2.4` refused; without asking for anybody's pre-releases."""
    text = (ROOT / "pyproject.toml").read_text()
    (line,) = [Requirement(part) for part in re.findall(r'"(torch[<>=!][^"]*)"', text)]

    assert not SpecifierSet(">=2.4").contains(builds()[0].version, prereleases=True)
    for build in builds():
        assert line.specifier.contains(build.version, prereleases=True), build.version
    assert not line.specifier.prereleases
    assert not line.specifier.contains("2.3.1")


def test_a_wheel_name_says_what_the_row_says() -> None:
    """Version, Python and architecture of an address are those of its row."""
    for build in builds():
        if build.wheel:
            name = build.wheel.rpartition("/")[2]
            assert re.fullmatch(rf"torch-{re.escape(build.version)}\.\d+-cp310-cp310-linux_aarch64\.whl", name)
            assert build.python == ("3.10",)


def test_the_choice_needs_nothing_but_python(tmp_path: Path) -> None:
    """It is made before anything is installed: isolated, without site-packages."""
    BOARDS["Pi 4"].lay_out(tmp_path)
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); "
        "runpy.run_module('edge_client.host.torch_build', run_name='__main__')"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, "--root", tmp_path, "--machine", "aarch64"],
        capture_output=True,
        text=True,
        check=True,
    )

    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert lines["requirement"] == "torch==2.9.1"
    assert lines["board"] == "Raspberry Pi 4 Model B Rev 1.4"
