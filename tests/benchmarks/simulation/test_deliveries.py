"""Boards that miss rounds and deliver late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")

from aggregator.merge.sums import Contribution
from benchmarks.simulation.deliveries import Deliveries, present
from benchmarks.simulation.fleet import begin, new_fleet
from benchmarks.simulation.session import SharedSession
from benchmarks.simulation.setting import Setting
from benchmarks.simulation.texts import BoardText
from braid_common.example import Example

SETTING = Setting(
    rule="braid", learning_rate=0.01, seed=1, mix="uniform", rounds=2, local_steps=1, batch=2, missing=0.3, late=0.4
)


def test_a_round_has_somebody_who_delivers() -> None:
    """Whatever the chances, nobody is twice in a round, and one board at least is on time; equal draws for equal
    seeds."""
    for setting in (
        SETTING,
        msgspec.structs.replace(SETTING, missing=0.99),
        msgspec.structs.replace(SETTING, late=1.0),
    ):
        drawn = [present(setting, 10, round_id) for round_id in range(1, 60)]

        assert all(on_time and not set(on_time) & set(late) for on_time, late in drawn)
        assert drawn == [present(setting, 10, round_id) for round_id in range(1, 60)]
    counts = [len(on_time) + len(late) for on_time, late in (present(SETTING, 10, n) for n in range(200))]
    assert 6.5 < sum(counts) / len(counts) < 7.5


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "counts_late"), [("braid", True), ("hetlora", False)])
def test_a_late_update_counts_for_less_in_the_next_round_or_is_lost(
    rule: str, counts_late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server with `staleness_limit = 1`: by 1/√2 where updates are changes, else not at all."""
    setting = msgspec.structs.replace(SETTING, rule=rule, missing=0.0, max_source_tokens=16, max_target_tokens=8)
    texts = [BoardText(tuple(Example(f"{i}.{n}", "", f"w{i} w{n}", f"w{n}") for n in range(4)), ()) for i in range(10)]
    fleet = new_fleet(setting, texts, tmp_path, SharedSession())
    begin(fleet)
    merged: list[list[Contribution]] = []
    merge = fleet.merge

    def watched(contributions: Any) -> None:
        merged.append(list(contributions))
        merge(merged[-1])

    monkeypatch.setattr(fleet, "merge", watched)
    deliveries = Deliveries(setting, fleet)
    deliveries.run_round()
    deliveries.run_round()

    (on_time, late), (next_on_time, _) = (present(setting, 10, n) for n in (1, 2))
    assert late
    assert len(merged[0]) == len(on_time)
    assert len(merged[1]) == len(next_on_time) + counts_late * len(late)
    assert sorted({round(one.weight / 2, 3) for one in merged[1]}) == ([0.707, 1.0] if counts_late else [1.0])
