"""Reading a board's text: every accepted form, and bad input that is counted, named and survived."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_client.data import collection
from edge_client.data.load import load_data, require_enough
from edge_client.data.shapes.known import PAIRS
from edge_client.data.text_lines import MAX_LINE_CHARS
from edge_client.errors import DataError
from edge_client.jobs.data_spec import DataSpec


def write_jsonl(path: Path, n: int) -> Path:
    path.write_text("".join(json.dumps({"source": f"text {i}", "target": f"title {i}"}) + "\n" for i in range(n)))
    return path


def texts(path: Path) -> set[tuple[str, str]]:
    data = load_data(DataSpec(str(path)))
    return {(example.source, example.target) for example in data.train + data.held_out}


@pytest.mark.parametrize("pair", [("source", "target"), *PAIRS])
def test_every_pair_of_columns_is_read_from_jsonl_and_csv(pair: tuple[str, str], tmp_path: Path) -> None:
    """The names that data sets use for source and target all work."""
    jsonl, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    jsonl.write_text(json.dumps({pair[0]: "a body", pair[1]: "a title", "other": 1}))
    table.write_text(f"id,{pair[1]},{pair[0].upper()}\n1,a title,a body\n")

    assert texts(jsonl) == texts(table) == {("a body", "a title")}


def test_a_csv_field_may_span_lines(tmp_path: Path) -> None:
    """Quoted newlines and commas belong to the text; a byte-order mark does not."""
    path = tmp_path / "a.csv"
    path.write_text('\ufeffsource,target\n"one, two\nthree","t"\n', encoding="utf-8")

    assert texts(path) == {("one, two\nthree", "t")}


def test_a_folder_of_text_gives_title_and_body(tmp_path: Path) -> None:
    """The first line of each .txt is the target, the rest the source; other files are not looked at."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("The title\n\nThe body\nof two lines\n")
    (tmp_path / "b.pdf").write_bytes(b"%PDF")

    assert texts(tmp_path) == {("The body\nof two lines", "The title")}


def test_bad_lines_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    """Eight kinds of bad lines among good ones: all good ones arrive, the first bad one is named with its line."""
    good = json.dumps({"source": "Süße", "target": "t"}, ensure_ascii=False).encode()
    bad = [b"{", b"[1]", b'{"source": {"of": 1}, "target": "t"}', b'{"source": "s"}', b'{"source": "", "target": "t"}']
    bad += [b'{"source": "\xff", "target": "t"}', b'{"source": "\\ud800", "target": "t"}', b"x" * (MAX_LINE_CHARS + 1)]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([good, b"", *bad, good]))

    data = load_data(DataSpec(str(path)))

    assert data.n_skipped == len(bad)
    assert data.first_skipped.startswith(f"{path}:3: no JSON")
    assert len(data.train + data.held_out) == 2


def test_bad_csv_rows_are_counted(tmp_path: Path) -> None:
    """A short row, a row that is no UTF-8 and an oversized line do not stop the others."""
    path = tmp_path / "a.csv"
    oversized = b'"' + b"x" * MAX_LINE_CHARS + b'",t\n'
    path.write_bytes("source,target\na,b\nshort\né,f\n".encode() + b"\xff,b\n" + oversized + b"c,d\n")

    data = load_data(DataSpec(str(path)))

    assert {(example.source, example.target) for example in data.train + data.held_out} == {
        ("a", "b"),
        ("é", "f"),
        ("c", "d"),
    }
    assert data.n_skipped == 3
    assert data.first_skipped.startswith(f"{path}:3:")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", None),
        ("a.jsonl", b""),
        ("a.jsonl", b"{\n"),
        ("a.csv", b""),
        ("a.csv", b"x,y\n1,2\n"),
        ("a.doc", b"x"),
    ],
)
def test_nothing_to_train_on_is_a_data_error(name: str, content: bytes | None, tmp_path: Path) -> None:
    """Missing, empty, all unreadable, of unknown kind: the message names the file, the hint says what to do."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        load_data(DataSpec(str(path)))

    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("spec", ["builtin:docstrings/no_such_library_here", "builtin:docstrings/", "builtin:web"])
def test_an_unknown_builtin_is_a_data_error(spec: str) -> None:
    """The hint or message says which names there are."""
    with pytest.raises(DataError, match="builtin"):
        load_data(DataSpec(spec))


def test_a_librarys_docstrings_are_data() -> None:
    """`builtin:docstrings/LIBRARY` reads what is installed."""
    data = load_data(DataSpec("builtin:docstrings/click"))

    assert len(data.train) > len(data.held_out) > 0
    assert {example.group for example in data.train} == {"click"}


def test_the_split_is_stable_and_disjoint(tmp_path: Path) -> None:
    """About a tenth is held out; adding lines moves no example to the other side."""
    few, many = (load_data(DataSpec(str(write_jsonl(tmp_path / f"{n}.jsonl", n)))) for n in (500, 1000))

    sides = [({e.source for e in data.train}, {e.source for e in data.held_out}) for data in (few, many)]
    assert sides[0][0] <= sides[1][0]
    assert sides[0][1] <= sides[1][1]
    assert not sides[1][0] & sides[1][1]
    assert 60 <= len(sides[1][1]) <= 140


@pytest.mark.parametrize("n", [2, 3, 5])
def test_two_examples_give_one_to_each_side(n: int, tmp_path: Path) -> None:
    """However few there are, something is trained on and something measured."""
    data = load_data(DataSpec(str(write_jsonl(tmp_path / "a.jsonl", n))))

    assert len(data.train) >= 1
    assert len(data.held_out) >= 1
    assert len(data.train) + len(data.held_out) == n


def test_a_single_example_is_read_but_not_enough(tmp_path: Path) -> None:
    """It can be looked at; training needs another one to measure on, and says so."""
    spec = DataSpec(str(write_jsonl(tmp_path / "a.jsonl", 1)))
    data = load_data(spec)

    with pytest.raises(DataError, match="at least 2 are needed") as caught:
        require_enough(data, spec)

    assert len(data.train) == 1
    assert caught.value.hint
    few = DataSpec(str(write_jsonl(tmp_path / "b.jsonl", 2)))
    require_enough(load_data(few), few)


def test_what_is_beyond_the_limit_is_said_to_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place from which on nothing is read any more; also where a record's own examples are too many."""
    monkeypatch.setattr(collection, "MAX_EXAMPLES", 3)
    chat = [{"role": role, "content": f"words {n}"} for n in range(9) for role in ("user", "assistant")]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": chat}))

    flat = load_data(DataSpec(str(write_jsonl(tmp_path / "a.jsonl", 5))))
    nested = load_data(DataSpec(str(path)))
    exact = load_data(DataSpec(str(write_jsonl(tmp_path / "b.jsonl", 3))))

    assert flat.n_examples == nested.n_examples == 3
    assert flat.findings.left_out_from == f"{tmp_path / 'a.jsonl'}:4"
    assert nested.findings.left_out_from == f"{path}:1#4"
    assert exact.findings.left_out_from == ""


def test_data_of_before_is_divided_as_before(tmp_path: Path) -> None:
    """Which examples are held out was the same when only JSON lines and CSV were read: these are the ones."""
    data = load_data(DataSpec(str(write_jsonl(tmp_path / "a.jsonl", 40))))

    assert [example.source for example in data.held_out] == ["text 2", "text 25", "text 28"]
    assert data.held_out[0].id == f"{tmp_path / 'a.jsonl'}:3"
    assert {example.group for example in data.train} == {"a"}


@given(content=st.binary(max_size=400), suffix=st.sampled_from([".jsonl", ".csv"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_data_or_a_data_error(content: bytes, suffix: str, tmp_path: Path) -> None:
    """Nothing but DataError escapes, whatever a file holds."""
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(b'{"source": "s", "target": "t"}\n' * (suffix == ".jsonl") + content)

    try:
        data = load_data(DataSpec(str(path)))
    except DataError:
        return
    assert data.train or data.held_out


def test_reading_data_loads_no_tensor_library() -> None:
    """The idle client checks its data too, and must stay small."""
    script = (
        "import sys, edge_client.data.load, edge_client.host.board, edge_client.plan.choose;"
        "import edge_client.base.locate as b;"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3])
