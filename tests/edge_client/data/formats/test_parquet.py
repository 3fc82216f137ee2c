"""Parquet where pyarrow is installed, and one sentence where it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_client.errors import ConfigError, DataError
from tests.fakes.data_files import examples, read

pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table with nested columns, under a name that says nothing."""
    import pyarrow.parquet

    rows = [
        {"id": n, "question": f"q {n}", "answers": {"text": [f"a {n}", "b"], "answer_start": [0, 1]}}
        for n in range(600)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "part-0")
    return tmp_path / "part-0"


def test_rows_are_records(table: Path) -> None:
    """Found by content; columns in columns are named as usual."""
    data = read(table)

    assert data.n_examples == 600
    assert examples(table)[0] == ("q 0", "a 0")
    assert data.first[0].other_targets == ("b",)
    assert data.findings.files[0].format == "parquet"
    assert examples(table, source="id", targets=["answers.text"])[599] == ("599", "a 599")


def test_a_damaged_file_is_named(table: Path) -> None:
    """Its end is missing, where Parquet has its table of contents."""
    table.write_bytes(table.read_bytes()[:-40])

    with pytest.raises(DataError, match="damaged") as caught:
        read(table)

    assert str(table) in caught.value.message


def test_without_pyarrow_one_sentence_says_how_to_install_it(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board needs none of it, so it is no dependency."""
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    with pytest.raises(ConfigError, match="needs pyarrow") as caught:
        read(table)

    assert "pip install 'braid-fl[parquet]'" in caught.value.hint
