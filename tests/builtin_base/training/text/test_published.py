"""Published sets join with their training parts, and every text of their tests is known."""

from __future__ import annotations

import json
from pathlib import Path

from builtin_base.training.text.published import read_examples, reserved_texts


def test_answers_are_pairs_and_texts_documents(tmp_path: Path) -> None:
    """An answer of a word is not asked for, but stands in the document."""
    path = tmp_path / "tides.train.jsonl"
    rows = [{"source": "when?", "target": "in the early morning"}, {"source": "high?", "target": "no"}]
    path.write_text("\n".join(map(json.dumps, rows)))

    found = read_examples(path, share=1.0)

    assert [(pair.origin, pair.target) for pair in found.pairs] == [("answer:tides", "in the early morning")]
    assert [document.text for document in found.documents] == ["when?\nin the early morning", "high?\nno"]


def test_a_quarter_of_a_set_joins(tmp_path: Path) -> None:
    """The same quarter each time, so that what is left is new to the base."""
    path = tmp_path / "tides.train.jsonl"
    path.write_text("\n".join(json.dumps({"source": f"when? {i}", "target": "in the morning"}) for i in range(400)))

    found = read_examples(path)

    assert 60 < len(found.documents) == len(found.pairs) < 140
    assert read_examples(path) == found


def test_every_right_answer_is_a_tested_text(tmp_path: Path) -> None:
    """Sets with several references, and sets whose answer goes by another name."""
    path = tmp_path / "tides.test.jsonl"
    path.write_text('{"source": "a", "target": "b", "targets": ["b", "c"]}\n{"source": "d", "generation": "e"}\n')

    assert set(reserved_texts([path])) == {"a", "b", "c", "d", "e"}
