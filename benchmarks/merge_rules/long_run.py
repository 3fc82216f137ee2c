"""Hundreds of rounds: who forgets what boards had learnt, who drifts, and what server optimisers do with time.

    python -m benchmarks.merge_rules.long_run --json long-run.json --learning-rates weave=0.004 flexlora=0.004

Ten boards with coffee orders, one scenario each, under several rules, and under one of them with each server optimiser
and with a falling learning rate. Long runs want smaller steps than short ones; a rule may
be named at several.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import msgspec

from benchmarks.merge_rules.tables import REFERENCE
from benchmarks.simulation.histories import QUICK, fleets
from benchmarks.simulation.setting import History, Setting
from benchmarks.simulation.texts import FORMS
from benchmarks.study.cli import command, study_parser
from benchmarks.study.tables import table

ROUNDS = 200
SETTING = Setting(
    rule="",
    learning_rate=0,
    seed=1,
    mix="uniform",
    partition="coffee",
    n_train=400,
    evaluate_every=10,
    server_rank=16,
    **FORMS["coffee"],
)

ETAS: Mapping[str, float] = {"nesterov": 0.233, "fedadam": 0.01}
"""Optimisers that are tried, with the steps that ten rounds found best (benchmarks.merge_rules.optimisers)."""

COOLDOWN = 0.5
"""Share of the rounds over which the learning rate falls, where it does."""

SHOWN = (0.05, 0.25, 0.5, 1.0)
"""Parts of the run after which losses are shown."""


def settings(rates: Sequence[tuple[str, float]], rounds: int, varied: str = REFERENCE) -> Iterator[Setting]:
    """Every rule at its rates; the varied one at its first rate also with a cooldown, and with every optimiser."""
    beside: list[dict[str, Any]] = [{"cooldown": COOLDOWN}]
    beside += [{"optimiser": optimiser, "eta": eta} for optimiser, eta in ETAS.items()]
    for rule, rate in rates:
        setting = msgspec.structs.replace(SETTING, rule=rule, learning_rate=rate, rounds=rounds)
        yield setting
        if rule == varied:
            yield from (msgspec.structs.replace(setting, **changes) for changes in beside)
            beside = []


def row(history: History) -> list[str]:
    """A run's cells: losses on the way, the lowest one with its round, and what boards have lost again since theirs."""
    setting = history.setting
    beside = ["a cooldown"] if setting.cooldown else [setting.optimiser] if setting.optimiser != "none" else []
    name = ", ".join([setting.rule, *beside])
    shown = [_loss_after(history, round(share * setting.rounds)) for share in SHOWN]
    best = min(history.points, key=lambda point: point.mean)
    return [
        name + (" (diverged)" if history.failed else ""),
        f"{setting.learning_rate:g}",
        *shown,
        f"{best.mean:.3f} ({best.round})",
        f"{forgotten(history):.3f}",
        f"{history.last.worst:.3f}",
    ]


def forgotten(history: History) -> float:
    """Nats by which boards' losses are above the lowest that each has had, the mean over boards."""
    lowest = [min(losses) for losses in zip(*(point.losses for point in history.points), strict=True)]
    return fmean(last - low for last, low in zip(history.last.losses, lowest, strict=True))


def _loss_after(history: History, round_id: int) -> str:
    reached = [point for point in history.points if point.round >= round_id]
    return f"{reached[0].mean:.3f}" if reached else "–"


def main() -> None:
    options = _options()
    changes = {**QUICK, "evaluate_every": 1} if options.quick else {"rounds": options.rounds}
    rounds = changes["rounds"]
    wanted = [
        msgspec.structs.replace(setting, **changes)
        for setting in settings(options.learning_rates, rounds, options.varied)
    ]
    with fleets(options) as study:
        histories: Sequence[History] = study.run(wanted)
        print(f"`{command('benchmarks.merge_rules.long_run')}`, {study.ground}\n")
    after = [f"after {round(share * rounds)}" for share in SHOWN]
    print(table(["", "learning rate", *after, "lowest (round)", "forgotten", "worst tenth"], map(row, histories)))


def _rate(text: str) -> tuple[str, float]:
    rule, _, rate = text.partition("=")
    return rule, float(rate)


def _options() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--learning-rates",
        type=_rate,
        nargs="+",
        required=True,
        metavar="RULE=RATE",
        help="as merge_rules found",
    )
    parser.add_argument("--varied", default=REFERENCE, help="rule that also runs with a cooldown and with optimisers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
