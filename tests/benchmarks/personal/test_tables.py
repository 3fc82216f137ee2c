"""What the study of local strands reckons and prints; that its runs work is `python -m benchmarks.personal --quick`."""

from __future__ import annotations

from benchmarks.personal.__main__ import SETTINGS
from benchmarks.personal.memory import Memory
from benchmarks.personal.runs import Outcome, Run, mean, worst_tenth
from benchmarks.personal.tables import costs_table, losses_table


def run(seed: int, fleet: str, losses: dict[str, tuple[float, float]]) -> Run:
    outcomes = tuple(Outcome(condition=name, global_=(2.0, 3.0), own=own, own_s=1.0) for name, own in losses.items())
    return Run(
        set="coffee",
        fleet=fleet,
        seed=seed,
        base=(4.0, 5.0),
        outcomes=outcomes,
        up_bytes=6_000_000,
        down_bytes=3_000_000,
        fleet_s=1.0,
    )


RUNS = [
    run(1, "global", {"global": (2.0, 3.0), "Ditto": (1.0, 2.0)}),
    run(2, "global", {"global": (2.0, 3.2), "Ditto": (1.2, 2.2)}),
    run(1, "PFTT", {"PFTT": (2.0, 2.0)}),
]


def test_the_worst_tenth_is_one_board_at_least() -> None:
    losses = [float(i) for i in range(20)]
    assert mean(losses) == 9.5
    assert worst_tenth(losses) == 18.5
    assert worst_tenth([3.0, 1.0]) == 3.0


def test_methods_stand_beside_the_fleet_of_the_same_seed() -> None:
    """Mean and worst board over seeds; differences by pairs of seeds, where there are two."""
    lines = losses_table("coffee", RUNS).splitlines()

    assert lines[2] == "| base |  | 4.500 ± 0.000 | 5.000 ± 0.000 |  |"
    assert lines[3] == "| global | 2.500 ± 0.000 | 2.550 ± 0.071 | 3.100 ± 0.141 |  |"
    assert lines[4] == "| Ditto | 2.500 ± 0.000 | 1.600 ± 0.141 | 2.100 ± 0.141 | **-0.950 ± 0.071** |"
    assert lines[5] == "| PFTT | 2.500 | 2.000 | 2.000 |  |"


def test_costs_are_a_boards() -> None:
    """Bytes of the fleet divided by its boards; the larger peak of round and own steps."""
    memory = Memory(condition="Ditto", predicted_bytes=440 << 20, round_bytes=300 << 20, own_bytes=400 << 20)
    lines = costs_table(RUNS, [memory], SETTINGS).splitlines()

    assert lines[2:] == ["| Ditto | 40 | 40 | 3.00 | 1.50 | 440 | 400 | 1.10 |"]
