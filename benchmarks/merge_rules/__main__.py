"""The comparison of merge rules: all on the same simulated fleets, real training of the builtin base on real text.

    python -m benchmarks.merge_rules --json rules.json           # hours on two cores; goes on where it was interrupted
    python -m benchmarks.merge_rules --json rules.json --vary weave braid   # what their settings do, too
    python -m benchmarks.merge_rules --json rules.json --report docs/results   # and its tables and plots

Ten boards, ten sources of text, ten rounds. Every board trains every decoder weight at its own rank (2 to 16) with
production's jobs; messages are the wire's, and their encoded sizes are the bytes. The global adapter is evaluated whole
on every board's held-out text. Each rule's learning rate is the best of the same small grid, for every mix and
partition its own, with a seed that no other run uses; where the best lies at the grid's edge, the grid is extended for
that rule. Settings of rules are varied on the first mix and partition that are named. With --quick rounds and texts are
tiny; name one rule, mix and partition to see in a minute that all works.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from benchmarks.merge_rules.cases import Case, cases, rules_of
from benchmarks.merge_rules.settings import (
    LEARNING_RATES,
    LONG,
    MOST_EXTENSIONS,
    VARIED,
    Changes,
    known_choice,
    main_settings,
    tune,
    varied_settings,
    with_measured_traffic,
)
from benchmarks.simulation.histories import QUICK, Fleets, fleets
from benchmarks.simulation.setting import Mix
from benchmarks.simulation.texts import Partition
from benchmarks.study.cli import command, study_parser

PARTITIONS: tuple[Partition, ...] = get_args(Partition)
MIXES: tuple[Mix, ...] = ("heavy-tail light", "equal", "uniform", "heavy-tail strong")


def main() -> None:
    options = _options()
    with fleets(options) as study:
        _compare(study, options)


def _compare(study: Fleets, options: argparse.Namespace) -> None:
    """Run whatever is not known yet, and write the report if one is asked for."""
    changes: Changes = {**(LONG if options.long else {}), **(QUICK if options.quick else {})}
    vary = [Case(rule, options.mixes[0], options.partitions[0]) for rule in options.vary]
    wanted = list(dict.fromkeys([*cases(options.rules or rules_of("equal"), options.mixes, options.partitions), *vary]))
    if options.known:
        rates, tuned = known_choice(study, wanted, changes)
    else:
        rates, tuned = tune(study, wanted, options.learning_rates, changes, MOST_EXTENSIONS)
    settings = list(main_settings(rates, changes))
    varied = {case.contestant: list(varied_settings(case, rates[case], changes)) for case in vary if case in rates}
    if not options.known:
        study.run(settings + [setting for variations in varied.values() for setting in variations])
    main_runs = with_measured_traffic(study, study.known(settings))
    if options.report:
        from benchmarks.merge_rules.report import Report, write_report  # imports matplotlib

        report = Report(
            command=command("benchmarks.merge_rules"),
            ground=study.ground,
            tuned=tuned,
            rates=rates,
            main=main_runs,
            varied={rule: study.known(variations) for rule, variations in varied.items()},
            partitions=options.partitions,
            mixes=options.mixes,
        )
        write_report(options.report / ("long-rounds" if options.long else "merging-rules"), report)


def _options() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--partitions", nargs="+", choices=PARTITIONS, default=PARTITIONS)
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=MIXES)
    parser.add_argument("--rules", nargs="+", help="these alone")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=LEARNING_RATES)
    parser.add_argument("--report", type=Path, help="write tables and plots into this folder")
    parser.add_argument("--known", action="store_true", help="report what has run, and train nothing more")
    parser.add_argument("--long", action="store_true", help=f"rounds of {LONG['local_steps']} steps")
    parser.add_argument("--vary", nargs="*", choices=tuple(VARIED), default=(), help="vary the settings of these rules")
    return parser.parse_args()


if __name__ == "__main__":
    main()
