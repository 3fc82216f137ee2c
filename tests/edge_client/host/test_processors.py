from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_client.host.processors import SAMPLE_S, free_processors, usable_processors

TICKS = round(os.sysconf("SC_CLK_TCK") * SAMPLE_S)


def write_stat(root: Path, busy: list[int]) -> None:
    """/proc/stat of as many processors; `busy` are their ticks in user mode, beside idle ones that always grow."""
    (root / "proc").mkdir(parents=True, exist_ok=True)
    rows = [f"cpu{i} {ticks} 0 0 {10 * ticks + 5} 3 0 0 0 0 0" for i, ticks in enumerate(busy)]
    total = f"cpu  {sum(busy)} 0 0 99 0 0 0 0 0 0"
    (root / "proc/stat").write_text("\n".join([total, *rows, "intr 12345", "ctxt 6789"]) + "\n")


@pytest.mark.parametrize("n_busy", [0, 1, 2, 7, 8])
def test_processors_that_others_keep_busy_are_left_alone(tmp_path: Path, n_busy: int) -> None:
    """On eight processors each one that worked through the sample is one thread less, and one thread always remains."""
    write_stat(tmp_path, [100] * 8)

    found = free_processors(tmp_path, lambda s: write_stat(tmp_path, [100 + TICKS * (i < n_busy) for i in range(8)]))

    assert found == max(1, min(usable_processors(tmp_path), 8 - n_busy))


@pytest.mark.parametrize("text", [None, "", "cpu\n", "cpu0 x y\n", "no such thing"])
def test_a_system_that_does_not_say_gives_all(tmp_path: Path, text: str | None) -> None:
    """Without a readable /proc/stat every usable processor is taken."""
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/stat").write_text(text)

    assert free_processors(tmp_path, lambda s: None) == usable_processors(tmp_path)
