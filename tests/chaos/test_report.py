"""The report: what a good run says, and what each kind of bad one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos.federation import Outcome, Plan
from chaos.ledger import Acknowledged, Ledger
from chaos.report import as_json, as_text
from chaos.suite import STAYS_DOWN, Result
from chaos.verdict import Stored

UPDATE = Acknowledged("ada", 1, "a" * 64)


def result(ends: dict[str, Counter[int]] | None = None, **changes: Any) -> Result:
    ledger = Ledger(acknowledged={UPDATE: None}, repeats=2)
    outcome = Outcome(Path("server"), ledger, Counter({"429": 3}), ends or {"server": Counter({0: 1, -9: 2})})
    good = Result(
        plan=Plan(7, 1, 1),
        outcome=outcome,
        stored=Stored((UPDATE,), (), {1: "v1", 2: "v2"}, 1, "v2"),
        lost=(),
        twice=(),
        missing=frozenset(),
        is_compared=True,
        difference=None,
    )
    return replace(good, **changes)


def test_a_good_run() -> None:
    text = "\n".join(as_text(result(), 12.0))

    assert "seed 7: 1 of 1 rounds with 1 boards in 12 s" in text
    assert "all 2 versions equal those of the run without faults, to the bit" in text
    numbers = as_json(result(), 12.0)
    assert numbers["good"] and (numbers["lost"], numbers["twice"], numbers["acknowledged"]) == (0, 0, 1)
    assert numbers["faults"] == {"429": 3} and numbers["ends"] == {"server": {-9: 2, 0: 1}}


def test_ends_that_wait_for_a_person_are_told() -> None:
    """By the statuses of the shipped units."""
    ends = {"server": Counter({5: 1, 11: 2}), "board1": Counter({7: 3, 10: 1})}
    text = "\n".join(as_text(result(outcome=replace(result().outcome, ends=ends)), 1.0))

    assert "server ended 1 times for a person" in text and "board1 ended 3 times for a person" in text
    units = Path(__file__).parents[2] / "deploy"
    for side, unit in (("server", "aggregator.service"), ("board", "edge-client.service")):
        line = f"RestartPreventExitStatus={' '.join(map(str, STAYS_DOWN[side]))}"
        assert line in (units / unit).read_text().splitlines()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lost": (UPDATE,)}, "lost: Acknowledged"),
        ({"twice": (UPDATE,)}, "twice: Acknowledged"),
        ({"difference": 2}, "DIFFERENT from the run without faults, from version 2 on"),
        ({"is_compared": False}, "the run without faults did not end"),
        ({"outcome": replace(result().outcome, is_stuck=True)}, "STUCK"),
        ({"outcome": replace(result().outcome, ends={"ada": Counter({1: 4})})}, "ada ended 4 times by a bug of ours"),
        ({"outcome": replace(result().outcome, ledger=Ledger(refused=Counter(no=1)))}, "refused 1 times: no"),
    ],
)
def test_bad_runs_say_why(changes: dict[str, Any], says: str) -> None:
    bad = result(**changes)

    assert not bad.is_good and not as_json(bad, 1.0)["good"]
    assert says in "\n".join(as_text(bad, 1.0))
