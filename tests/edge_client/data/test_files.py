"""Files and folders that data may be: compressed, damaged, of a kind that is no data, among others not read."""

from __future__ import annotations

import gzip
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_client.errors import ConfigError, DataError
from tests.fakes.data_files import examples, read, write_jsonl

RECORDS = [{"source": f"text {n}", "target": f"title {n}"} for n in range(50)]
EXPECTED = [(f"text {n}", f"title {n}") for n in range(50)]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "data.jsonl", RECORDS)


@pytest.mark.parametrize("name", ["data.jsonl.gz", "data.gz", "data.jsonl", "data"])
def test_gzip_is_read_whatever_it_is_called(name: str, lines: Path, tmp_path: Path) -> None:
    """By content; the compression is named."""
    path = tmp_path / "packed" / name
    path.parent.mkdir()
    path.write_bytes(gzip.compress(lines.read_bytes()))

    data = read(path)

    assert examples(path) == EXPECTED
    assert data.findings.files[0].compression == "gzip"
    assert data.train[0].group == "data"


@given(share=st.floats(0.0, 0.999))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_gzip_that_is_cut_off_is_refused_as_a_whole(share: float, lines: Path, tmp_path: Path) -> None:
    """A download that broke: nobody can tell how much is missing."""
    whole = gzip.compress(lines.read_bytes())
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: max(12, int(share * len(whole)))])

    with pytest.raises(DataError, match=r"cut\.jsonl\.gz is cut off or damaged") as caught:
        read(path)

    assert "again" in caught.value.hint


def test_zstandard_is_read_where_a_package_is(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own from 3.14 on, else a backport; without either one sentence says what to install."""
    path = tmp_path / "a.jsonl.zst"
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed")
    zstd = importlib.import_module(name)
    path.write_bytes(zstd.compress(lines.read_bytes()))
    assert examples(path) == EXPECTED
    path.write_bytes(zstd.compress(os.urandom(1000) * 2)[:-100])
    with pytest.raises(DataError):
        read(path)

    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    with pytest.raises(ConfigError, match="zstd") as caught:
        read(path)
    assert "braid-fl[zstd]" in caught.value.hint


@pytest.mark.parametrize(
    ("magic", "words"),
    [
        (b"PK\x03\x04", "spreadsheet"),
        (b"%PDF-1.7", "PDF"),
        (b"\xd0\xcf\x11\xe0", "spreadsheet"),
        (b"SQLite format 3\0", "database"),
        (b"\x00\x01\x02" * 100, "no text"),
    ],
)
def test_what_is_no_data_is_called_what_it_is(magic: bytes, words: str, tmp_path: Path) -> None:
    """A spreadsheet called .csv is still one; the hint says what to make of it."""
    path = tmp_path / "export.csv"
    path.write_bytes(magic + b"\0" * 50)

    with pytest.raises(DataError, match=words) as caught:
        read(path)

    assert caught.value.hint


def test_a_folder_is_read_file_by_file_and_each_is_named(tmp_path: Path) -> None:
    """Formats and compression may differ; what is not read is named too; hidden files and editors' copies are not
    there."""
    (tmp_path / "deep").mkdir()
    (tmp_path / ".cache").mkdir()
    write_jsonl(tmp_path / "a.jsonl", RECORDS[:2])
    (tmp_path / "deep" / "b.csv").write_text("Question;Answer\nwho?;me\n")
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(b'[{"text": "t", "summary": "s"}]'))
    (tmp_path / "part-0").write_text('{"source": "by content", "target": "t"}\n')
    (tmp_path / "README.md").write_text("About this data\n\nIt is invented.\n")
    (tmp_path / "scan.pdf").write_bytes(b"%PDF")
    write_jsonl(tmp_path / ".cache" / "copy.jsonl", RECORDS)

    data = read(tmp_path)

    names = [Path(file.path).name for file in data.findings.files]
    assert names == ["a.jsonl", "c.json.gz", "b.csv", "part-0"]
    assert [file.n_examples for file in data.findings.files] == [2, 1, 1, 1]
    assert {Path(name).name for name in data.findings.left_out_files} == {"README.md", "scan.pdf"}
    assert data.findings.shapes == ("source and target", "text and summary", "question and answer")


def test_a_refused_file_in_a_folder_is_skipped_and_named(tmp_path: Path) -> None:
    """The others are read."""
    write_jsonl(tmp_path / "a.jsonl", RECORDS[:2])
    (tmp_path / "b.json").write_text('[{"source": "s", "tar')

    data = read(tmp_path)

    assert data.n_examples == 2
    assert data.first_skipped.startswith(f"{tmp_path / 'b.json'}: the file is left out: ")
    assert "no JSON" in data.first_skipped


def test_a_folder_of_texts_has_titles_as_targets(tmp_path: Path) -> None:
    """.txt and .md; a title alone is no example, and is named. Columns are called title and body."""
    (tmp_path / "a.txt").write_text("Title A\r\n\r\nBody A\r\nmore\r\n", newline="")
    (tmp_path / "b.md").write_text("# Title B\nBody B")
    (tmp_path / "c.txt").write_text("Only a title")

    data = read(tmp_path)

    found = {(example.source, example.target) for example in data.train + data.held_out}
    assert found == {("Body A\nmore", "Title A"), ("Body B", "# Title B")}
    assert data.findings.skips == ((str(tmp_path / "c.txt"), "body is empty"),)
    assert data.findings.files[0].n_files == 3
    assert read(tmp_path, source="{title}: {body}", targets=["title"]).first[0].source == "Title A: Body A\nmore"


def test_an_empty_folder_and_a_missing_path(tmp_path: Path) -> None:
    """Each says what is there, and what to do."""
    with pytest.raises(DataError, match="no data in the folder"):
        read(tmp_path)
    (tmp_path / "scan.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"there is scan\.pdf"):
        read(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "nowhere.jsonl")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read(tmp_path / "pipe")
