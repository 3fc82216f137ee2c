"""Shapes that are known by name: what of a record is read, what is written, and what is named as ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_client.errors import DataError
from tests.fakes.data_files import examples, read, write_jsonl

NOTHING: tuple[str, ...] = ()

# name: (record, source, targets, shape, ignored columns)
RECORDS: dict[str, tuple[dict[str, Any], str, tuple[str, ...], str, tuple[str, ...]]] = {
    "alpaca": ({"instruction": "Do", "input": "this", "output": "done"}, "Do\nthis", ("done",), "alpaca", NOTHING),
    "alpaca without input": (
        {"instruction": "Do", "input": "", "output": "done", "text": "all of it"},
        "Do",
        ("done",),
        "alpaca",
        ("text",),
    ),
    "dolly": (
        {"instruction": "Who?", "context": "Ada was.", "response": "Ada", "category": "qa"},
        "Who?\nAda was.",
        ("Ada",),
        "dolly",
        ("category",),
    ),
    "question with context": (
        {"id": "1", "Question": "Who?", "Context": "Ada was.", "Answer": "Ada"},
        "Who?\nAda was.",
        ("Ada",),
        "question with context",
        ("id",),
    ),
    "squad in rows": (
        {
            "title": "T",
            "context": "C",
            "question": "Q",
            "answers": {"text": ["a", "b", "a"], "answer_start": [0, 2, 0]},
        },
        "Q\nC",
        ("a", "b"),
        "question with context",
        ("title",),
    ),
    "several references": (
        {"source": "s", "target": "one", "targets": ["one", "two", None, ""]},
        "s",
        ("one", "two"),
        "source and target",
        NOTHING,
    ),
    "references alone": (
        {"document": "d", "summaries": ["a", "b"]},
        "d",
        ("a", "b"),
        "document and summary",
        NOTHING,
    ),
    "references beside": ({"text": "t", "references": ["a", "b"]}, "t", ("a", "b"), "text and summary", NOTHING),
    "sentences in a list": (
        {"source": ["One.", "Two."], "target": ["a", "b"]},
        "One.\nTwo.",
        ("a", "b"),
        "source and target",
        NOTHING,
    ),
    "numbers and truth values": ({"text": 3.5, "label": True}, "3.5", ("true",), "text and label", NOTHING),
    "translation": ({"translation": {"en": "house", "de": "Haus"}}, "house", ("Haus",), "translation", NOTHING),
    "columns of languages": (
        {"id": 4, "de": "Haus", "en": "house"},
        "Haus",
        ("house",),
        "translation",
        ("id",),
    ),
    "ticket": (
        {"subject": "Help", "body": "It broke.", "answer": "We mend it.", "queue": "IT"},
        "Help\nIt broke.",
        ("We mend it.",),
        "ticket",
        ("queue",),
    ),
    "email": ({"email_body": "Hi", "subject_line": "Hello"}, "Hi", ("Hello",), "email_body and subject_line", NOTHING),
    "preferences": (
        {"prompt": "p", "chosen": "good", "rejected": "bad"},
        "p",
        ("good",),
        "prompt and chosen",
        ("rejected",),
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_by_its_shape(name: str, tmp_path: Path) -> None:
    """Source, every right answer, the shape's name, and the columns that are not used."""
    record, source, targets, shape, ignored = RECORDS[name]
    data = read(write_jsonl(tmp_path / "a.jsonl", [record] * 2))

    assert data.first[0].source == source
    assert data.first[0].targets == targets
    assert data.findings.shapes == (shape,)
    assert data.findings.ignored_columns == ignored
    assert data.n_skipped == 0


def test_every_empty_value_is_skipped_and_named(tmp_path: Path) -> None:
    """Null, NaN, white space, a list of nothing; the reason says which column."""
    empty = [None, float("nan"), "  ", [], [None, ""], {"text": []}]
    path = write_jsonl(tmp_path / "a.jsonl", [{"source": "s", "target": value} for value in [*empty, "t"]])

    data = read(path)

    assert data.n_examples == 1
    assert data.n_skipped == len(empty)
    assert {reason for _, reason in data.findings.skips} == {"target is empty"}


def test_the_same_file_may_have_several_shapes(tmp_path: Path) -> None:
    """Each record is read by its own; all are named."""
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"text": "a", "summary": "b"}, {"QUESTION": "c", "answer": "d"}, {"x": "y"}]
    )

    data = read(path)

    assert examples(path) == [("a", "b"), ("c", "d")]
    assert data.findings.shapes == ("text and summary", "question and answer")
    assert data.findings.ignored_columns == ("x",)
    assert data.first_skipped == f"{path}:3: of no shape that is known by name; its columns are x"


@pytest.mark.parametrize(
    ("record", "flags"),
    [
        (
            {"fname": "t0", "dialogue": "#A#: Hi\n#B#: Hello", "summary1": "They greet.", "summary2": "Hi."},
            "--source dialogue --target summary1",
        ),
        (
            {"Ticket ID": 1, "Ticket Description": "My screen is dark. " * 5, "Resolution": "Turned it on.", "Age": 30},
            "--source 'Ticket Description' --target Resolution",
        ),
    ],
)
def test_what_is_not_known_is_refused_with_the_flags_to_add(record: dict[str, Any], flags: str, tmp_path: Path) -> None:
    """The columns that are there, and a command line that reads the likeliest two; nothing is guessed silently."""
    path = write_jsonl(tmp_path / "a.jsonl", [record] * 3)

    with pytest.raises(DataError) as caught:
        read(path)

    assert all(column in caught.value.message for column in record)
    assert flags in caught.value.hint


def test_objects_in_a_column_are_named_as_what_they_are(tmp_path: Path) -> None:
    """With the way to name what is in them."""
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": {"de": "a", "en": "b"}, "summary": "s"}])

    with pytest.raises(DataError, match="source or target is an object with de, en, not text"):
        read(path)

    assert examples(path, source="text.en", targets=["summary"]) == [("b", "s")]


def test_squad_as_it_is_published(tmp_path: Path) -> None:
    """Articles, paragraphs, questions; those without an answer are counted."""
    import json

    question = {"id": "q", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}, {"text": "Ada L."}]}
    impossible = {"id": "r", "question": "Why?", "answers": [], "is_impossible": True}
    paragraph = {"context": "Ada was.", "qas": [question, impossible]}
    path = tmp_path / "dev-v2.0.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "Ada", "paragraphs": [paragraph] * 3}] * 2}))

    data = read(path)

    assert data.n_examples == 6
    assert (data.first[0].source, data.first[0].targets) == ("Who?\nAda was.", ("Ada", "Ada L."))
    assert data.n_skipped == 6
    assert data.findings.skips[0][1] == "a question without an answer"
    assert data.findings.ignored_columns == ("title",)
