"""Text sets: which part an example belongs to."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.simulation import text_sets
from braid_common.example import Example


def write_orders(folder: Path, part: str, n_dialogues: int) -> None:
    """Dialogues of three steps, as the published set has them."""
    lines = [
        {
            "id": f"dlg-{part}{number}-{step}",
            "client": f"scenario-{number % 3}",
            "source": f"user: {part} {number}, step {step}",
            "target": f"call: step {step}",
        }
        for number in range(n_dialogues)
        for step in range(3)
    ]
    (folder / f"coffee.{part}.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, lines)))


def dialogues(examples: tuple[Example, ...]) -> set[str]:
    return {example.source.partition(",")[0] for example in examples}


def test_a_dialogue_belongs_to_one_part_of_the_orders(tmp_path: Path) -> None:
    """A step's source holds the steps before it: one dialogue in two parts would be trained and judged by."""
    write_orders(tmp_path, "train", 40)
    write_orders(tmp_path, "test", 4)

    orders = text_sets.load(text_sets.ORDERS, tmp_path)

    assert (len(orders.train), len(orders.validation), len(orders.test)) == (38 * 3, 2 * 3, 4 * 3)
    assert not dialogues(orders.train) & dialogues(orders.validation)
    assert orders.cut == "start"
