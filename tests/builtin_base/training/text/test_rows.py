"""A side of the corpus is read as it was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builtin_base.training.batches import Sources
from builtin_base.training.text import rows


def test_rows_come_back(tmp_path: Path, sources: Sources) -> None:
    """Every id of the streams, every row of the pairs."""
    rows.write(tmp_path / "text.safetensors", sources.text)
    back = rows.read(tmp_path / "text.safetensors")
    assert np.array_equal(back.streams["docstring"], sources.text.streams["docstring"])
    own, read = sources.text.pairs["summary", "docstring"], back.pairs["summary", "docstring"]
    assert [list(own.targets[i]) for i in range(len(own))] == [list(read.targets[i]) for i in range(len(read))]
    assert [list(own.sources[i]) for i in range(len(own))] == [list(read.sources[i]) for i in range(len(read))]
