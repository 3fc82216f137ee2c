"""The coffee federation of the bar trains on its boards' scenarios and judges calls."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch")

import builtin_base
from benchmarks.bar import coffee

pytestmark = pytest.mark.slow  # it trains


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Orders of eight scenarios, each with a call and an answer."""
    for part in ("train", "test"):
        lines = [
            {
                "id": str(i),
                "client": f"scenario {i % 8}",
                "source": f"USER: a large latte, number {i}" if i < 8 else f"USER: good morning {i}",
                "target": 'call: order {"drink": "latte"}' if i < 8 else "say: with milk?",
            }
            for i in range(16)
        ]
        (tmp_path / f"coffee.{part}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_each_board_has_scenarios_of_its_own(data_folder: Path) -> None:
    train, test = coffee.texts(data_folder)

    assert [len(board) for board in train] == [4] * 4
    assert [{example.group for example in board} for board in train] == [
        {f"scenario {i}", f"scenario {i + 4}"} for i in range(4)
    ]
    assert len(test) == 16


def test_a_federation_is_judged_by_its_calls(data_folder: Path, tmp_path: Path) -> None:
    """A base that is taught one call again and again makes that call, and makes it where it should."""
    train, test = coffee.texts(data_folder)
    recipe = msgspec.structs.replace(
        coffee.RECIPE, rounds=3, local_steps=12, batch=4, learning_rate=0.01, max_source_tokens=24, max_target_tokens=16
    )

    rows = dict(coffee.measure(builtin_base.folder(), train, test, tmp_path / "work", recipe))

    assert list(rows) == [
        f"coffee, {what} of 8 calls{which}"
        for which in ("", " whose source was not cut")
        for what in ("right tool", "exact call")
    ]
    assert rows["coffee, right tool of 8 calls"].mean == 1
