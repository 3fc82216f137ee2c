"""Tables of budgets, targets and troubles."""

from __future__ import annotations

import msgspec

from benchmarks.merge_rules import protocols
from benchmarks.simulation.setting import History
from tests.fakes.histories import history


def with_costs(run: History, factor: int) -> History:
    """The history at so many times the bytes, with two CPU seconds a round."""
    points = (
        msgspec.structs.replace(
            point, up_bytes=factor * point.up_bytes, down_bytes=factor * point.down_bytes, train_s=2.0 * point.round
        )
        for point in run.points
    )
    return msgspec.structs.replace(run, points=tuple(points))


def test_losses_are_compared_at_what_the_cheapest_spends() -> None:
    """A fleet that sends twice as much is judged in the middle of its run."""
    runs = [history(0.1, [5, 4, 3], seed=seed) for seed in (1, 2)]
    both = {name: [with_costs(run, factor) for run in runs] for name, factor in (("cheap", 1), ("dear", 2))}

    cheap, dear = protocols.budget_table(both).splitlines()[2:]

    assert cheap == "| cheap | 4.000 ± 0.000 | 3.000 ± 0.000 | 4.000 ± 0.000 | 3.000 ± 0.000 |"
    assert dear == "| dear | 4.500 ± 0.000 | 4.000 ± 0.000 | 4.000 ± 0.000 | 3.000 ± 0.000 |"
    assert "| dear | 0 | 3 |" in protocols.target_table(both)


def test_trouble_is_told_as_a_difference_of_pairs() -> None:
    """Each trouble's fleets stand beside the same seeds without it."""
    plain = [history(0.1, [5, 3.0 + seed], seed=seed) for seed in (1, 2)]
    worse = [
        msgspec.structs.replace(
            history(0.1, [5, 3.25 + seed], seed=seed), setting=msgspec.structs.replace(run.setting, missing=0.3)
        )
        for seed, run in zip((1, 2), plain, strict=True)
    ]

    row = protocols.trouble_table({"braid": plain}, worse).splitlines()[2]

    assert row == "| braid | 4.500 ± 0.707 | 4.750 ± 0.707 | **+0.250 ± 0.000** | – |  |"
