"""What is derived from a measurement, and how it is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edge_client.bench.plot import check_plot, draw
from edge_client.bench.report import Report, facts
from edge_client.bench.table import lines
from edge_client.errors import ConfigError

Make = Callable[..., Report]


def test_speeds_count_source_and_target_and_the_encoder_once(make: Make) -> None:
    """4 × (32 + 8) tokens in 0.04 s; over three epochs the 0.1 s of the encoder come on top once."""
    report = make()

    assert report.tokens_per_s == pytest.approx(160 / 0.04)
    assert report.amortised_tokens_per_s == pytest.approx(3 * 160 / (0.1 + 3 * 0.04))


def test_utilisation_is_of_the_measured_peak(make: Make) -> None:
    """Twice the peak is half the utilisation."""
    assert make(peak_gflops=20.0).mfu == pytest.approx(make(peak_gflops=10.0).mfu / 2)


def test_what_lies_frozen_is_what_the_runs_rule_leaves_frozen(make: Make) -> None:
    """B alone is trained beside the whole adapter, A and B in the place of its leading strands."""
    request = make().request
    both = msgspec.structs.replace(request.settings, trains_a=True)
    beside = replace(request, run=msgspec.structs.replace(request.run, settings=both))

    of_b, of_both = request.frozen_ranks(), beside.frozen_ranks()

    names = [weight.name for weight in request.run.weights]
    assert not request.settings.trains_a
    assert [of_b[name] - of_both[name] for name in names] == [
        min(rank, of_b[name]) for name, rank in zip(names, request.plan.ranks, strict=True)
    ]
    assert any(request.plan.ranks)


def test_tokens_per_joule_are_tokens_per_second_and_watt(make: Make) -> None:
    """η_e of arXiv 2310.03150."""
    report = make(sensor="INA3221 VDD_IN", no_sensor="", watts=8.0, n_samples=12)

    assert report.tokens_per_joule == pytest.approx(4000 / 8)
    assert report.step_joules == pytest.approx(8 * 0.04)


def test_granularity_grows_with_the_steps_of_a_round(make: Make) -> None:
    """Communication stays the same."""
    few, many = make(local_steps=10), make(local_steps=30)

    for before, after in zip(few.over_links(), many.over_links(), strict=True):
        assert after.granularity == pytest.approx(3 * before.granularity)


def test_json_holds_plain_finite_values_and_null_where_nothing_was_measured(make: Make) -> None:
    """It survives a strict parser."""
    found = json.loads(json.dumps(facts(make()), allow_nan=False))

    assert found["energy"] is None
    assert found["phases"]["encode_s"] == 0.1
    assert [link["link_mbps"] for link in found["round"]["links"]] == [1.0, 10.0, 100.0]


def test_the_table_says_every_phase_and_what_could_not_be_measured(make: Make) -> None:
    """Each of the paper's figures has its line."""
    table = "\n".join(lines(make()))

    for word in ("load", "encode", "forward", "backward", "optimiser", "tokens/s", "MFU", "peak memory", "Mbit/s", "G"):
        assert word in table
    assert "not measurable here (no INA3221 or RAPL readable)" in table
    assert "tokens/J" in "\n".join(lines(make(sensor="RAPL", no_sensor="", watts=8.0)))


def test_in_all_scope_the_encoder_is_a_part_of_forward(make: Make) -> None:
    """Its line says so, and there is nothing to amortise."""
    report = make(scope="all")
    table = lines(report)

    assert any(line.startswith("encode") and " 0 " in line and "part of forward" in line for line in table)
    assert report.amortised_tokens_per_s == report.tokens_per_s
    assert not any("epoch" in line for line in table)


def test_columns_stand_below_each_other(make: Make) -> None:
    """In every block the figures end where the heading above them does."""
    table = lines(make())
    phases = table[table.index("") + 1 :][:7]

    assert len({line.index("ms") for line in phases[3:] if " ms" in line}) == 1
    assert all(not line.endswith(" ") for line in table)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
@pytest.mark.parametrize("scope", ["decoder", "all"])
def test_a_picture_is_drawn(suffix: str, start: bytes, scope: str, make: Make, tmp_path: Path) -> None:
    """In the format that its name says, with one link as with three."""
    pytest.importorskip("matplotlib")
    path = tmp_path / f"bench{suffix}"

    draw(make(scope=scope, mbps=(10.0,)), path)
    draw(make(scope=scope), path)

    assert path.read_bytes().startswith(start)


def test_a_picture_without_matplotlib_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before anything is measured."""
    monkeypatch.setattr("edge_client.bench.plot.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ConfigError) as caught:
        check_plot(tmp_path / "bench.png")

    assert caught.value.hint == "pip install 'braid-fl[plot]'"


@pytest.mark.parametrize("name", ["bench.pdf", "bench", "missing/bench.png"])
def test_a_picture_that_cannot_be_written_is_refused_first(name: str, tmp_path: Path) -> None:
    """An unknown suffix, a folder that is not there."""
    with pytest.raises(ConfigError, match="--plot"):
        check_plot(tmp_path / name)
