"""Columns and templates that a user names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.data.shapes.shape import Fields
from edge_client.data.shapes.template import parse_template
from edge_client.errors import ConfigError, DataError
from tests.fakes.data_files import examples, read, write_jsonl

RECORDS = [
    {"Title": "One", "Body text": "first", "tags": ["a", "b"], "meta": {"lang": "en"}, "n": 1},
    {"Title": "", "Body text": "second", "tags": [], "meta": {"lang": "de"}, "n": 2},
    {"Title": "Three", "Body text": "third", "tags": "c", "meta": None, "n": 3},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "a.jsonl", RECORDS)


def test_any_two_columns(path: Path) -> None:
    """Without regard to case; what is not used is named."""
    data = read(path, source="body TEXT", targets=["N"])

    assert examples(path, source="body TEXT", targets=["N"]) == [("first", "1"), ("second", "2"), ("third", "3")]
    assert data.findings.ignored_columns == ("Title", "tags", "meta")
    assert (data.findings.source_columns, data.findings.target_columns) == (("Body text",), ("n",))


def test_a_template_joins_columns(path: Path) -> None:
    """New lines as they are written in a shell; an empty column leaves no empty line at the ends."""
    found = examples(path, source=r"{title}\n{{{Body text}}}", targets=["{n}."])

    assert found == [("One\n{first}", "1."), ("{second}", "2."), ("Three\n{third}", "3.")]


def test_several_targets_are_several_right_answers(path: Path) -> None:
    """The first that a record has comes first; equal ones count once; a list counts as all that is in it."""
    data = read(path, source="n", targets=["title", "body text", "tags"])

    targets = {example.source: example.targets for example in data.train + data.held_out}
    assert targets == {"1": ("One", "first", "a", "b"), "2": ("second",), "3": ("Three", "third", "c")}


def test_a_column_in_a_column(path: Path) -> None:
    """With a point between; records that lack it are skipped."""
    assert examples(path, source="meta.lang", targets=["n"]) == [("en", "1"), ("de", "2")]
    assert read(path, source="meta.lang", targets=["n"]).findings.source_columns == ("meta.lang",)


@pytest.mark.parametrize(
    ("source", "targets", "words"),
    [("nope", ["n"], "'nope'"), ("{title} {nope}", ["n"], "'nope'"), ("title", ["n", "nope"], "'nope'")],
)
def test_a_column_that_is_not_there_is_an_error_with_those_that_are(
    path: Path, source: str, targets: list[str], words: str
) -> None:
    """Also in a template or as a further target: a typing error must not just leave something out."""
    with pytest.raises(DataError, match=words) as caught:
        read(path, source=source, targets=targets)

    assert "Title, Body text, tags, meta, n" in caught.value.message


@pytest.mark.parametrize(
    ("flag", "text"), [("source", "{title"), ("source", "title}"), ("source", "{{x}}"), ("source", "{}")]
)
def test_a_bad_template_is_an_error_before_anything_is_read(flag: str, text: str) -> None:
    """It says how to write one."""
    with pytest.raises(ConfigError, match=r"brace|names no column") as caught:
        read(Path("/nowhere"), targets=["n"], **{flag: text})

    assert "{title}" in caught.value.hint


def test_one_of_the_two_alone_is_an_error(path: Path) -> None:
    """It says which one is missing."""
    with pytest.raises(ConfigError, match="--source is given without --target"):
        read(path, source="title")
    with pytest.raises(ConfigError, match="--target is given without --source"):
        read(path, targets=["title"])
    with pytest.raises(ConfigError, match="no columns"):
        read(Path("builtin:docstrings/click"), source="a", targets=["b"])


@given(parts=st.lists(st.tuples(st.text(max_size=5), st.sampled_from(["a", "b c", "ä.d"])), min_size=1, max_size=4))
def test_words_in_a_template_stay_as_they_are(parts: list[tuple[str, str]]) -> None:
    """Any words, escaped where they must be, stand between the columns' values."""

    def escaped(words: str) -> str:
        return words.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")

    template = parse_template("".join(f"{escaped(words)}{{{column}}}" for words, column in parts), "--source")
    expected = "".join(f"{words}<{column}>" for words, column in parts).strip()

    assert template.texts(Fields({column: f"<{column}>" for _, column in parts})) == [expected]
