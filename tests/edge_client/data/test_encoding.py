"""Encodings: found, given, or the file is refused as a whole; never is a file's ASCII part all that is read of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_client.errors import ConfigError, DataError
from tests.fakes.data_files import examples, read

GERMAN = [(f"Wo ist das Kabel für Gerät {n}?", "Es liegt hinter dem Tisch, an der Tür.") for n in range(12)]
RUSSIAN = [(f"Где находится кабель {n}?", "Он находится за экраном, у окна.") for n in range(12)]
JAPANESE = [(f"ネットワークケーブルはどこですか {n}", "画面の裏、窓側にあります。") for n in range(12)]
PLAIN = [(f"Where is the menu {n}?", "Press the button.") for n in range(12)]


def write_table(path: Path, rows: list[tuple[str, str]], encoding: str) -> Path:
    path.write_bytes("".join(f'"{a}";"{b}"\n' for a, b in [("question", "answer"), *rows]).encode(encoding))
    return path


@pytest.mark.parametrize(
    ("rows", "encoding"),
    [
        (GERMAN, "latin-1"),
        (GERMAN, "cp1252"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc_jp"),
        (GERMAN, "utf-16"),
        (GERMAN, "utf-16-be"),
        (GERMAN, "utf-8-sig"),
        (RUSSIAN, "utf-32"),
    ],
)
def test_an_encoding_is_found_and_named(rows: list[tuple[str, str]], encoding: str, tmp_path: Path) -> None:
    """All rows are read, those in plain ASCII too, and what was guessed is called so."""
    path = write_table(tmp_path / "a.csv", rows + PLAIN, encoding)

    assert examples(path) == rows + PLAIN
    if not encoding.startswith("utf"):
        assert read(path).findings.files[0].encoding.endswith("(guessed)")


@given(
    n_plain=st.integers(0, 60),
    n_foreign=st.integers(1, 12),
    encoding=st.sampled_from(["latin-1", "cp1252", "cp850", "cp1250"]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_never_only_the_ascii_rows(n_plain: int, n_foreign: int, encoding: str, tmp_path: Path) -> None:
    """However few rows have an umlaut: all rows are read, or none with the line that would help."""
    path = write_table(tmp_path / "a.csv", PLAIN[:1] * n_plain + GERMAN[:n_foreign], encoding)
    try:
        data = read(path)
    except DataError as error:
        assert "is not UTF-8" in error.message
        assert "--encoding" in error.hint
        assert "iconv -f" in error.hint
        assert str(path) in error.hint
        return
    assert data.n_examples == n_plain + n_foreign
    assert data.n_skipped == 0


def test_too_little_text_is_refused_until_its_encoding_is_given(tmp_path: Path) -> None:
    """Two letters say nothing: the file is refused as a whole, and read with the flag that the hint shows."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\nplain,row\nna\xefve,M\xfcller\n")

    with pytest.raises(DataError, match=r"a\.csv:3 is not UTF-8"):
        read(path)

    assert examples(path, encoding="latin-1") == [("plain", "row"), ("naïve", "Müller")]


def test_a_damaged_line_in_utf_8_is_one_line(tmp_path: Path) -> None:
    """Where other lines show that the file is UTF-8, the damaged one is skipped and named."""
    path = tmp_path / "a.csv"
    path.write_bytes("question,answer\nSüß,Öl\nÄ,Ö\n".encode() + b"\xff\xfe,x\n" + "Ü,ß\n".encode())

    data = read(path)

    assert data.n_examples == 3
    assert data.first_skipped == f"{path}:4: not in the file's encoding"


def test_a_given_encoding_that_is_wrong_is_refused(tmp_path: Path) -> None:
    """Named, with the way out; so is one that does not exist, or that is no text's."""
    path = write_table(tmp_path / "a.csv", GERMAN, "latin-1")

    with pytest.raises(DataError, match=r"a\.csv is not in utf-8: .*a\.csv:2"):
        read(path, encoding="utf8")
    for name in ("latin-99", "base64"):
        with pytest.raises(ConfigError, match="no encoding"):
            read(path, encoding=name)


def test_a_folder_of_short_texts_is_judged_as_one(tmp_path: Path) -> None:
    """Each says too little by itself; those in ASCII are not all that is read."""
    for n, (source, target) in enumerate(GERMAN):
        (tmp_path / f"{n:02}.txt").write_bytes(f"{target}\n{source}".encode("latin-1"))
    (tmp_path / "plain.txt").write_text("Title\nBody")
    (tmp_path / "utf8.txt").write_text("Größe\nÄndern", encoding="utf-8")

    data = read(tmp_path)

    found = {(example.source, example.target) for example in data.train + data.held_out}
    assert found == {*GERMAN, ("Body", "Title"), ("Ändern", "Größe")}
    assert data.n_skipped == 0


@pytest.mark.parametrize("n", [100_000, (1 << 20) + 5])
def test_foreign_text_far_behind_the_first_lines_is_found(n: int, tmp_path: Path) -> None:
    """The whole file is looked at, and a huge line is no reason to give up."""
    path = tmp_path / "a.csv"
    path.write_bytes(f'question;answer\n"{"x" * n}";"t"\n'.encode() + write_table(path, GERMAN, "cp1252").read_bytes())

    data = read(path)

    assert GERMAN[0] in examples(path)
    assert data.findings.files[0].encoding == "cp1252 (guessed)"
