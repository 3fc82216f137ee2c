"""Command-line options of a study that runs one kind of fleet: its boards' ranks and text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, get_args

from benchmarks.simulation.setting import Mix, Setting
from benchmarks.simulation.texts import FORMS, Partition

_PLAIN = Setting(rule="", learning_rate=0, seed=0)


def add_fleet_options(parser: argparse.ArgumentParser) -> None:
    """Add --mix and --partition."""
    parser.add_argument("--mix", choices=get_args(Mix), default=_PLAIN.mix, help="ranks  [default: %(default)s]")
    parser.add_argument(
        "--partition", choices=get_args(Partition), default=_PLAIN.partition, help="of text  [default: %(default)s]"
    )


def fleet_of(options: argparse.Namespace) -> Mapping[str, Any]:
    """The settings that these options choose, with the lengths that such texts are cut to."""
    return {"mix": options.mix, "partition": options.partition, **FORMS.get(options.partition, {})}
