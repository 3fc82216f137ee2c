"""JSON documents: arrays, objects that hold them, columns; cut off, nested, huge."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edge_client.data.formats import json_document
from edge_client.data.formats.json_document import MAX_RECORD_CHARS, read_json_document
from edge_client.data.formats.record import Record
from edge_client.errors import DataError
from tests.fakes.data_files import examples, read

RECORDS = [{"source": f"text {n} “é”", "target": f"title {n}", "more": [{"a": {}}]} for n in range(5)]
EXPECTED = [(f"text {n} “é”", f"title {n}") for n in range(5)]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)

DOCUMENTS: dict[str, Any] = {
    "an array": RECORDS,
    "an array in an object": {"version": "1.1", "data": RECORDS, "n": 5},
    "two arrays in an object": {"train": RECORDS[:3], "test": RECORDS[3:]},
    "an object of records": {f"id-{n}": record for n, record in enumerate(RECORDS)},
    "columns as lists": {key: [record[key] for record in RECORDS] for key in ("source", "target")},
    "a split table": {"columns": ["source", "target"], "index": [0], "data": [list(r.values())[:2] for r in RECORDS]},
    "columns as pandas writes them": {
        key: {str(n): record[key] for n, record in enumerate(RECORDS)} for key in ("source", "target")
    },
}


@pytest.mark.parametrize("names", [[0, 1], [["a", "b"], ["a", "c"]], [None, True]])
def test_a_split_table_whose_columns_have_no_names(names: list[Any], tmp_path: Path) -> None:
    """pandas writes numbers where a table had no header, and lists where it had several. Once a traceback."""
    path = tmp_path / "a.json"
    rows = [["a text to read", "and its answer"], ["another text to read", "and another"]]
    path.write_text(json.dumps({"columns": names, "index": [0, 1], "data": rows}))
    source, target = map(str, names)

    with pytest.raises(DataError) as refused:
        read(path)
    assert f"--source {shlex.quote(source)} --target {shlex.quote(target)}" in refused.value.hint
    assert read(path, source=source, targets=[target]).n_examples == 2


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".txt", ""])
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_is_read_as_its_records(kind: str, suffix: str, indent: int | None, tmp_path: Path) -> None:
    """On one line or over many, whatever it is called."""
    path = tmp_path / f"document{suffix}"
    path.write_text(json.dumps(DOCUMENTS[kind], indent=indent), encoding="utf-8")

    data = read(path)

    assert sorted((example.source, example.target) for example in data.train + data.held_out) == EXPECTED
    assert data.n_skipped == 0
    assert data.findings.files[0].format == "json"


@pytest.mark.parametrize("indent", [None, 1])
def test_one_object_alone_is_one_record(indent: int | None, tmp_path: Path) -> None:
    """Pretty or not, also with lists inside that look like records; several after each other are several."""
    path = tmp_path / "a.json"
    record = {"question": "Who?", "context": "Ada was.", "answers": [{"text": "Ada", "answer_start": 0}]}
    path.write_text("\n".join([json.dumps(record, indent=indent)] * 2))

    assert examples(path) == [("Who?\nAda was.", "Ada")] * 2


@given(elements=st.lists(VALUES, max_size=6), chunk=st.integers(1, 12), indent=st.sampled_from([None, 0, 3]))
def test_an_array_is_read_piece_by_piece_as_in_one(elements: list[Any], chunk: int, indent: int | None) -> None:
    """However the text is cut into pieces on its way, the elements are those that the standard library gives."""

    class Drops(io.StringIO):
        def read(self, size: int | None = -1, /) -> str:
            return super().read(chunk)

    text = json.dumps(elements, indent=indent, ensure_ascii=False)

    found = list(read_json_document(Drops(text), Path("a.json"), lambda _: False))  # type: ignore[arg-type]

    assert [item.value for item in found if isinstance(item, Record)] == elements


@given(cut=st.integers(1, 300), junk=st.sampled_from(["", "}", "]", ",", '"', "\0"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_document_that_is_cut_off_is_refused_as_a_whole(cut: int, junk: str, tmp_path: Path) -> None:
    """Half an array is nothing to train on without a word. The message says where, the hint what to do."""
    path = tmp_path / "cut.json"
    text = json.dumps(RECORDS, indent=1)
    cut_off = text[: len(text) - min(cut, len(text) - 20)] + junk
    try:
        json.loads(cut_off)
    except ValueError:
        pass
    else:
        assume(False)  # cut and mended between two records
    path.write_text(cut_off, encoding="utf-8")

    with pytest.raises(DataError, match=r"cut\.json:\d+ is no JSON|cut\.json holds no text") as caught:
        read(path)

    assert caught.value.hint


def test_a_large_document_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an array in an object one element at a time; the object itself is longer than any value may be."""
    monkeypatch.setattr(json_document, "MAX_RECORD_CHARS", 2000)
    monkeypatch.setattr(json_document, "CHUNK_CHARS", 100)
    longest = 0

    class Watched(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> Any:
            nonlocal longest
            longest = max(longest, len(s))
            return super().raw_decode(s, idx)

    monkeypatch.setattr("edge_client.data.formats.json_document.json.JSONDecoder", Watched)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 2, "data": [{"source": f"s{n}", "target": "t"} for n in range(5000)]}))

    assert read(path).n_examples == 5000
    assert longest < 10_000 < path.stat().st_size


def test_a_record_that_is_too_long_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Nothing of unknown length is held: the hint names JSON lines, where one line can be skipped."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"source": "x" * (MAX_RECORD_CHARS + 2), "target": "t"}]))

    with pytest.raises(DataError, match="one record takes more than") as caught:
        read(path)

    assert ".jsonl" in caught.value.hint


def test_nesting_without_end_is_an_error_like_any_other(tmp_path: Path) -> None:
    """Neither a crash nor a bug of ours."""
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000)

    with pytest.raises(DataError, match="no JSON"):
        read(path)
