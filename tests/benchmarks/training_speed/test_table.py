"""The table of training speeds: what is divided by what."""

from __future__ import annotations

import pytest

from benchmarks.training_speed.contest import EPOCHS, Contestant, Measurement, Row, Workload, amortised, find
from benchmarks.training_speed.table import sketch_shares, table
from braid_common.units import MIB

WORKLOAD = Workload(shape="small", steps=4, source=300, target=100)


def row(contestant: Contestant, *speeds: float, peak_mib: float = 900) -> Row:
    """A contestant that ran once at each speed, 300 MiB of its memory imports."""
    runs = tuple(
        Measurement(tokens_per_s=speed, peak_bytes=peak_mib * MIB, imports_bytes=300 * MIB, n_trained=1)
        for speed in speeds
    )
    return Row(contestant=contestant, workload=WORKLOAD, runs=runs)


PEFT = Contestant(kind="peft", format="fp32", scope="all")
OURS = Contestant(kind="ours", format="nf4", scope="all")


def test_the_pass_over_the_sources_is_paid_once() -> None:
    """Over all epochs: 1,200 tokens at 100 a second, and 300 encoded ones at a second each, take 312 s."""
    run = Measurement(tokens_per_s=100, encode_s_per_token=1.0, peak_bytes=1, imports_bytes=0, n_trained=1)
    assert amortised(run, WORKLOAD) == pytest.approx(EPOCHS * 400 / (EPOCHS * 4 + 300))


def test_ratios_are_of_medians_and_of_memory_above_imports() -> None:
    cells = table([row(PEFT, 90, 100, 500), row(OURS, 250, 100, 900, peak_mib=450)]).splitlines()[-1].split("|")

    assert [cell.strip() for cell in cells[4:8]] == ["250", "250", "450", "150"]
    assert [cell.strip() for cell in cells[8:12]] == ["2.50", "2.50", "2.50", "4.00"]


def test_a_contestant_that_did_not_run_is_in_the_table_with_its_reason() -> None:
    failed = Row(contestant=OURS, workload=WORKLOAD, runs=(), reason="no memory")
    text = table([row(PEFT, 100), failed])

    assert "see below" in text
    assert text.splitlines()[-1] == "- ours nf4, all: no memory"
    assert find([failed], "ours", "all") is None


def test_a_sketch_is_compared_with_the_same_step_without() -> None:
    sketched = Contestant(kind="ours", format="nf4", scope="all", sketch=True)
    other = Contestant(kind="ours", format="nf4", scope="decoder", sketch=True)

    assert sketch_shares([row(OURS, 110), row(sketched, 100), row(other, 1)]) == [
        "Sketches of every batch, ours nf4, all: +10.0% time"
    ]
