"""The fast tests in an emulated root, without those that need what QEMU's user emulation lacks, each by name."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arm64.emulated import Emulated
from arm64.shell import say

FOLDERS = ("braid_common", "wire", "quantize", "builtin_base", "edge_client")
"""Tests of what runs on a board."""

LEFT_OUT: Mapping[str, str] = {
    "tests/edge_client/engines/lean/gradients/test_sketches.py::test_each_turn_counts_for_its_own_blocks": (
        "compares with transformers, which no board has"
    ),
}
"""Test, by the beginning of its name → why it cannot say anything under emulation."""

PYTHON = "/opt/braid/venv/bin/python"
VARIABLES = "PYTHONPATH=/srv/braid:/srv/test-packages HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis"
"""Of this repository's own code in a root; the packages that boards lack lie in a folder."""


def run_tests(board: Emulated, log: Path) -> dict[str, Any]:
    """Run them to the end, whatever fails; what came of it."""
    say(f"the fast tests of {', '.join(FOLDERS)}, emulated: see {log}")
    left_out = [f"--deselect={name}" for name in LEFT_OUT]
    folders = [f"tests/{folder}" for folder in FOLDERS]
    pytest = (
        "-m",
        "pytest",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-p",
        "no:cacheprovider",
        "-m",
        "'not slow'",
        "-rfE",
        "--hypothesis-profile",
        "fast",
    )
    words = " ".join([PYTHON, *pytest, *left_out, *folders])
    command = f"cd /srv/braid; {VARIABLES} {words}"
    start_s = time.monotonic()
    board.run("/bin/sh", "-c", f"{command} || [ $? = 1 ]", log=log)
    return outcome(log.read_text(errors="replace")) | {"core": board.core, "seconds": time.monotonic() - start_s}


def outcome(text: str) -> dict[str, Any]:
    """The outcome by pytest's last lines: how many passed, failed and were skipped, and what failed by name."""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
    failures = re.findall(r"^(?:FAILED|ERROR) (tests/\S+)", text, re.MULTILINE)
    n_failed = counts.get("failed", 0) + counts.get("error", 0)
    return {**{word: counts.get(word, 0) for word in ("passed", "skipped")}, "failed": n_failed, "failures": failures}
