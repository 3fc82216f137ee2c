"""Contestants as a person names them, and the form that all of them meet the texts in."""

from __future__ import annotations

from pathlib import Path

import pytest

from braid_common.text_form import DEFAULT_FORM, TextForm
from edge_client.cli.contestants import Entry, common_form, gathered, parse_adapters
from edge_client.errors import ConfigError


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """A folder with two folders of the same last name, and one that is called 7."""
    for name in ("a/adapter", "b/adapter", "7", "with=sign"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_names_come_from_folders(adapters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last part of the path, or the word before =; where two are alike, the whole path."""
    one, other, seven, signed = (adapters / name for name in ("a/adapter", "b/adapter", "7", "with=sign"))

    assert parse_adapters([str(one)]) == [Entry("adapter", one)]
    assert parse_adapters([str(one), str(other)]) == [Entry(str(one), one), Entry(str(other), other)]
    assert parse_adapters([f"mine={one}", str(other)]) == [Entry("mine", one), Entry("adapter", other)]
    assert parse_adapters([str(signed)]) == [Entry("with=sign", signed)]
    monkeypatch.chdir(adapters)
    assert parse_adapters(["7"]) == [Entry("7", Path("7"))]  # a folder before a version
    assert parse_adapters(["8", "old=0012"]) == [Entry("version 8", None, 8), Entry("old", None, 12)]
    assert parse_adapters(["a/adapter/."]) == [Entry("adapter", Path("a/adapter"))]
    assert seven.is_dir()


@pytest.mark.parametrize(
    "word", ["nowhere", "x=nowhere", "x=", "=", "", "-3", "1.5", "12345678901", "²", "x" * 5000, "y=" + "x" * 5000]
)
def test_what_is_neither_folder_nor_version_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="there is no adapter at") as caught:
        parse_adapters([word])
    assert "aggregator export" in caught.value.hint


def test_no_two_contestants_share_a_name(adapters: Path) -> None:
    folder = adapters / "a/adapter"
    for words in ([f"x={folder}", f"x={folder}"], [str(folder), str(folder)], [f"base={folder}"], ["3", "3"]):
        with pytest.raises(ConfigError, match="two contestants are called") as caught:
            parse_adapters(words)
        assert "--adapter OTHER=" in caught.value.hint


def test_a_version_needs_a_board_that_has_joined(tmp_path: Path) -> None:
    """Nothing is written where there is none."""
    with (
        pytest.raises(ConfigError, match="no board that has joined"),
        gathered([Entry("version 3", None, 3)], "", tmp_path / "state"),
    ):
        pass
    assert not (tmp_path / "state").exists()


FORM = TextForm("translate: ", 100, 20, "start")


def test_the_first_form_that_is_known_counts() -> None:
    """Flags are stronger; whose own form is another one is told, with the fields that differ."""
    assert common_form({}, {}) == (DEFAULT_FORM, [])
    assert common_form({"a": FORM}, {}) == (FORM, [])
    assert common_form({"a": FORM, "b": FORM}, {}) == (FORM, [])

    form, (told,) = common_form({"a": FORM, "b": TextForm("translate: ", 64, 20, "start")}, {})
    assert form == FORM
    assert told == "b was trained with max_source_tokens 64, and is judged with max_source_tokens 100"

    form, (told,) = common_form({"a": FORM}, {"prefix": ""})
    assert form == TextForm("", 100, 20, "start")
    assert told == "a was trained with prefix 'translate: ', and is judged with prefix ''"
