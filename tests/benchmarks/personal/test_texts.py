"""What the study of local strands reads."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from benchmarks.personal.__main__ import QUICK
from benchmarks.personal.texts import texts
from edge_client.errors import DataError


def test_each_board_has_one_clients_text(tmp_path: Path) -> None:
    """The largest clients, each on a board of its own, no test example among the training examples."""
    sizes = {"a": 14, "b": 30, "c": 20}
    lines = [
        json.dumps({"id": f"{client}{i}", "client": client, "source": f"{client} {i}", "target": str(i)})
        for client, size in sizes.items()
        for i in range(size)
    ]
    (tmp_path / "coffee.train.jsonl").write_text("\n".join(lines))

    boards = texts("coffee", tmp_path, QUICK)

    assert [{example.group for example in (*train, *test)} for train, test in boards] == [{"b"}, {"c"}]
    assert [(len(train), len(test)) for train, test in boards] == [(16, 6), (14, 6)]
    for train, test in boards:
        assert not {example.source for example in train} & {example.source for example in test}


def test_sets_that_are_not_there_or_too_small_are_said(tmp_path: Path) -> None:
    """As the run leaves them out."""
    with pytest.raises(DataError, match="cannot be read"):
        texts("coffee", tmp_path, QUICK)
    (tmp_path / "coffee.train.jsonl").write_text('{"client": "a", "source": "s", "target": "t"}\n')
    with pytest.raises(DataError, match="a has 1 examples"):
        texts("coffee", tmp_path, msgspec.structs.replace(QUICK, n_boards=1))
