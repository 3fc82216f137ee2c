"""Tasks made from text are answered by that text."""

from __future__ import annotations

from builtin_base.training.text import tasks
from builtin_base.training.text.documents import Document
from tests.fakes.base_training import DOCSTRING, SENTENCE


def test_tasks_answer_with_pieces_of_the_document() -> None:
    """A next sentence, a title or a parameter's meaning stands in the document that it was made from."""
    body = " ".join(f"{SENTENCE.capitalize()} in year {i}." for i in range(6))
    documents = [
        Document("page", "tides", f"Tide tables\n\n{body}"),
        Document("docstring", "f", f"f(size)\n{DOCSTRING}"),
    ]
    found = list(tasks.make_pairs(documents * 3))
    assert {pair.origin.partition(":")[0] for pair in found} >= {"parameter", "returns", "raises"}
    text = " ".join(" ".join(document.text.split()) for document in documents)
    assert all(pair.target in text for pair in found)
