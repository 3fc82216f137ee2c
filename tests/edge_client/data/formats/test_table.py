"""Tables as spreadsheets and databases write them: any delimiter, quoting, rows that do not fit."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_client.data.formats.table import DELIMITERS, parse_delimiter
from edge_client.errors import ConfigError, DataError
from tests.fakes.data_files import examples, read

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff\x85"),
    min_size=1,
    max_size=30,
).filter(lambda text: text.strip() == text)


@pytest.mark.slow
@given(
    rows=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8),
    delimiter=st.sampled_from(sorted(DELIMITERS)),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ending=st.sampled_from(["\n", "\r\n"]),
    suffix=st.sampled_from([".csv", ".tsv", ".txt", ""]),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_spreadsheet_writes_is_what_is_read(
    rows: list[tuple[str, str]],
    delimiter: str,
    encoding: str,
    quoting: int,
    ending: str,
    suffix: str,
    tmp_path: Path,
) -> None:
    """Every delimiter, encoding with a mark or plain to see, quoting, line end and name: the same texts come back."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=ending)  # type: ignore[arg-type]
    writer.writerows([("question", "id", "answer"), *((source, 7, target) for source, target in rows)])
    path = tmp_path / f"table{suffix}"
    path.write_bytes(text.getvalue().encode(encoding))

    assert examples(path) == rows
    assert read(path).findings.ignored_columns == ("id",)


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_delimiter_is_named(delimiter: str, tmp_path: Path) -> None:
    """Also where every text is full of the others."""
    path = tmp_path / "a.csv"
    others = "".join(sorted(DELIMITERS.keys() - {delimiter, "\t"}))
    path.write_text(f"text{delimiter}summary\n" + f"one{others}two{delimiter}three {others}\n" * 3)

    assert read(path).findings.files[0].delimiter == ("tab" if delimiter == "\t" else delimiter)
    assert examples(path)[0] == (f"one{others}two", f"three {others}".strip())


def test_a_delimiter_can_be_given(tmp_path: Path) -> None:
    """A rare one, by itself; a usual one by name or as it is written in a shell."""
    path = tmp_path / "a.csv"
    path.write_text("text~summary\na,b~c\n")

    assert examples(path, delimiter="~") == [("a,b", "c")]
    assert parse_delimiter("tab") == parse_delimiter("\\t") == parse_delimiter("\t")
    assert parse_delimiter("Semicolon") == parse_delimiter(";")
    assert parse_delimiter("") is None
    with pytest.raises(ConfigError, match="no delimiter"):
        parse_delimiter("::")


def test_a_first_line_that_tells_the_delimiter_is_no_header(tmp_path: Path) -> None:
    """`sep=;` is what a spreadsheet leaves for itself."""
    path = tmp_path / "a.csv"
    path.write_text("sep=;\nquestion;answer\na;b\n")

    assert examples(path) == [("a", "b")]


def test_lines_may_end_as_on_an_old_mac(tmp_path: Path) -> None:
    """A carriage return alone."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\ra,b\rc,d\r")

    assert examples(path) == [("a", "b"), ("c", "d")]


def test_bare_quotation_marks_in_a_table_of_tabs(tmp_path: Path) -> None:
    """Databases quote nothing there: a mark that opens a text is a part of it."""
    path = tmp_path / "a.tsv"
    path.write_text('text\tsummary\n"Hello, he said\tgreeting\nplain\tword\n"so" it is\tx\n')

    assert examples(path) == [('"Hello, he said', "greeting"), ("plain", "word"), ('"so" it is', "x")]


def test_a_row_with_too_many_columns_is_skipped_with_the_reason(tmp_path: Path) -> None:
    """A comma that nobody quoted would cut the text short; empty columns at the end are no harm, nor are missing
    ones."""
    path = tmp_path / "a.csv"
    path.write_text("id,text,summary\n1,Hello, world,greeting\n2,a,b,,\n3,c,d\n4,e\n")

    data = read(path)

    assert examples(path) == [("a", "b"), ("c", "d")]
    assert data.findings.skips == (
        (f"{path}:2", "4 columns, but the first line names 3; is a , not quoted?"),
        (f"{path}:5", "summary is empty"),
    )


def test_a_quotation_mark_that_is_never_closed_loses_no_rows_silently(tmp_path: Path) -> None:
    """It takes all rows behind it along: they are counted, and the line is named where it opens."""
    path = tmp_path / "a.csv"
    rows = "".join(f'"text {n}","answer {n}"\n' for n in range(100))
    path.write_text(f'text,summary\n{rows}"open,x\n' + "a,b\n" * 50)

    data = read(path)

    assert data.n_examples == 100
    assert data.n_skipped == 51
    assert data.first_skipped == f"{path}:102: a quotation mark opens here that is never closed"


def test_columns_without_a_name_are_named_by_their_place(tmp_path: Path) -> None:
    """As pandas writes its index; and a second column of a name does not hide the first."""
    path = tmp_path / "a.csv"
    path.write_text(",text,summary,text\n0,a,b,c\n")

    data = read(path)

    assert examples(path) == [("a", "b")]
    assert data.findings.ignored_columns == ("column 1", "column 4")


def test_a_table_of_one_column_is_refused_with_it(tmp_path: Path) -> None:
    """There is nothing to write."""
    path = tmp_path / "a.csv"
    path.write_text("message\nhello there\nand again\n")

    with pytest.raises(DataError, match="its columns are message") as caught:
        read(path)

    assert "two texts" in caught.value.hint
