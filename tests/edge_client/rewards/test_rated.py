"""Rated files: what is read of them, how they are divided, and those that say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_client.errors import DataError
from edge_client.rewards.rated import LEAST_OF_A_CLASS, read_rated


def write(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def rated(n_sources: int, **fields: Any) -> list[dict[str, Any]]:
    """A good and a bad answer to each source."""
    return [
        {"source": f"question {i}", "answer": f"answer {good}", "reward": good} | fields
        for i in range(n_sources)
        for good in (0, 1)
    ]


def test_no_source_is_on_both_sides(tmp_path: Path) -> None:
    """A model that remembers its sources would else look good on what it is tested on."""
    file = read_rated(write(tmp_path / "rated.jsonl", *rated(300)))

    train, held_out = ({answer.source for answer in part} for part in (file.train, file.held_out))
    assert not train & held_out
    assert len(train) + len(held_out) == 300
    assert 40 <= len(held_out) <= 80


def test_other_spellings_are_read(tmp_path: Path) -> None:
    lines = [{"source": f"q{i}", "generation": "a", "rating": i % 2 == 0} for i in range(300)]
    file = read_rated(write(tmp_path / "rated.jsonl", *lines))

    assert sum(answer.is_good for answer in (*file.train, *file.held_out)) == 150


def test_unusable_lines_are_counted(tmp_path: Path) -> None:
    bad = ["{", "[1]", {"source": "", "answer": "a", "reward": 1}, {"source": "s", "answer": "a"}]
    worse = [{"source": "s", "answer": "a", "reward": value} for value in (2, -1, "1", float("nan"), 10**400)]
    file = read_rated(write(tmp_path / "rated.jsonl", *bad, *worse, *rated(300)))

    assert file.n_skipped == len(bad) + len(worse)
    assert file.first_skipped == "line 1: no JSON"


@pytest.mark.parametrize("reward", [0, 1])
def test_a_file_of_one_kind_is_refused(tmp_path: Path, reward: int) -> None:
    """Whoever only collects what was liked cannot learn what is not."""
    path = write(tmp_path / "rated.jsonl", *rated(300, reward=reward))

    with pytest.raises(DataError, match=f"has {600 * reward} good and {600 * (1 - reward)} bad answers"):
        read_rated(path)


def test_too_few_to_test_on_are_refused(tmp_path: Path) -> None:
    """Enough in all, and too few of one kind among the held-out ones."""
    path = write(tmp_path / "rated.jsonl", *rated(2 * LEAST_OF_A_CLASS))

    with pytest.raises(DataError, match="bad answers to test on"):
        read_rated(path)


@pytest.mark.parametrize(
    ("lines", "says"), [(["nonsense"], "has no rated answer; first: line 1: no JSON"), ([], "has no rated answer")]
)
def test_a_file_without_any_is_refused(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_rated(write(tmp_path / "rated.jsonl", *lines))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_rated(tmp_path / "rated.jsonl")
