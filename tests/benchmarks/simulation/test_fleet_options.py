"""The options of a study of one kind of fleet."""

from __future__ import annotations

import argparse

from benchmarks.simulation.fleet_options import add_fleet_options, fleet_of
from benchmarks.simulation.setting import Setting
from benchmarks.simulation.texts import FORMS


def test_text_is_cut_as_the_comparison_of_rules_cuts_it() -> None:
    """By its partition; without options the fleet is the setting's own."""
    parser = argparse.ArgumentParser()
    add_fleet_options(parser)
    plain = Setting(rule="weave", learning_rate=0.1, seed=0)

    chosen = fleet_of(parser.parse_args(["--partition", "coffee", "--mix", "uniform"]))

    assert chosen == {"mix": "uniform", "partition": "coffee", **FORMS["coffee"]}
    assert Setting(rule="weave", learning_rate=0.1, seed=0, **fleet_of(parser.parse_args([]))) == plain
