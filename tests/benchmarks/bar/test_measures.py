"""The bar measures of a base by itself what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import builtin_base
from benchmarks.bar import measures
from benchmarks.bar.__main__ import bar_table
from builtin_base.training import model_folder

pytestmark = pytest.mark.slow  # transformers alone takes seconds to import


@pytest.mark.parametrize(
    ("text", "babbles"),
    [
        ("return the return the return the sum", True),
        ("a b c x a b c y a b c", True),
        ("the the sum of the terms", False),
    ],
)
def test_babbling(text: str, babbles: bool) -> None:
    """Runs of one to four words said three times count as repetition, and single echoes do not."""
    assert measures.is_babbling(text) == babbles


@pytest.mark.parametrize(
    ("written", "reference", "score"),
    [("the cat sat", "The cat sat.", 1.0), ("a b c d", "a c", 2 / 3), ("x", "y", 0.0), ("", "y", 0.0)],
)
def test_rouge_l(written: str, reference: str, score: float) -> None:
    """F1 of the longest common subsequence of words."""
    assert measures.rouge_l(written, reference) == pytest.approx(score)


def test_the_table_compares_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each base has a column of the same rows, and its samples below; the function's name needs no base."""
    for name, size in {"UNSEEN": ("tides",), "N_OUTPUTS": 2, "N_COPIES": 2, "N_EACH": 1, "MAX_ANSWER": 4}.items():
        monkeypatch.setattr(measures, name, size)
    (tmp_path / "tides.py").write_text(
        'def count_tides(day):\n    """Count tides of that day.\n\n'
        '    The moon is asked first, and then the sun, which also pulls a little at the water."""\n'
    )
    report = measures.measure(*model_folder.load(builtin_base.folder()), tmp_path, 2)

    table = bar_table({"one": report, "two": report})

    assert "| measure | bar | one | two |" in table
    rows = dict(report.rows)
    assert rows["for comparison: the function's name"].mean == pytest.approx(4 / 7)
    assert rows["nats a piece of unseen docstrings"].mean > 0
    assert report.samples[0][0] == "Count tides of that day."
