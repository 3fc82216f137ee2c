"""The examples run, and come to what their first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def output_of(name: str) -> str:
    """What an example prints, run as its docstring says: by its path, in the repository."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_two_updates_merge_to_their_weighted_mean() -> None:
    """Ranks 4 and 12 fit into the server's 16, so that nothing is cut."""
    printed = output_of("merge_two_updates.py")

    found = re.fullmatch(r"version 2: rank 16, (\S+) away from the weighted mean\n", printed)
    assert found is not None and float(found[1]) < 1e-6


def test_a_board_of_1_gib_gets_a_plan_that_fits() -> None:
    """All strands of the decoder, within 1 GiB less what the client keeps."""
    printed = output_of("plan_for_a_board.py")

    assert "1408 of 1408 strands on 88 of 88 weights" in printed
    assert re.search(r"^memory: \d+ MiB predicted peak of 979 MiB", printed, re.MULTILINE)


def test_each_example_is_tested() -> None:
    """A new example gets a test here."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"merge_two_updates.py", "plan_for_a_board.py"}
