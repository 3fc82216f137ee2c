"""Which merge rule? All of them on the same simulated fleets: real training of the builtin base on real text.

    python -m benchmarks.merge_rules --json rules.json           # hours on two cores; goes on where it was interrupted
    python -m benchmarks.merge_rules --json rules.json --vary weave braid   # what their settings do, too
    python -m benchmarks.merge_rules --json rules.json --report docs/merging   # and its tables and plots

Ten boards, ten sources of text, ten rounds. Every board trains every decoder weight at its own rank (2 to 16) with
production's jobs; messages are the wire's, and their encoded sizes are the bytes. The global adapter is evaluated whole
on every board's held-out text. Each rule's learning rate is the best of the same small grid, for every mix its own, on
one partition and with a seed that no other run uses; where the best lies at the grid's edge, the grid is extended for
that rule.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from benchmarks.simulation.setting import History, Mix, Setting
from benchmarks.simulation.texts import Partition
from benchmarks.study.cli import add_options, begin, command
from benchmarks.study.runner import Runs

LEARNING_RATES = (0.004, 0.008, 0.016, 0.032)
MOST_EXTENSIONS = 3
"""How often the grid is extended at an edge, each time by a factor of two."""

TUNING = Setting(rule="", learning_rate=0, seed=0, partition="library", evaluate_every=10)
"""Where learning rates are chosen, for every mix."""

SEEDS = (1, 2, 3)
N_WRITTEN = 6
"""Texts per board for ROUGE-L, after the last round."""

PARTITIONS: tuple[Partition, ...] = get_args(Partition)
MIXES: tuple[Mix, ...] = ("heavy-tail light", "equal", "uniform", "heavy-tail strong")

VARIED: Mapping[str, tuple[dict[str, Any], ...]] = {
    "weave": (
        *({"server_rank": rank} for rank in (8, 16, 64)),
        *({"eta": eta} for eta in (0.5, 1.5)),
    ),
    "braid": (
        *({"server_rank": rank} for rank in (8, 16, 64)),
        *({"sketch_every": every} for every in (1, 5, 100)),
        *({"local_steps": steps} for steps in (1, 2, 10)),
        *({"sketch_noise": noise} for noise in (0.3, 1.0, 3.0)),
        *({"eta": eta} for eta in (0.5, 1.5, 2.0)),
    ),
}
"""What is changed of a rule's settings, one thing at a time. sketch_every 100: the profiles' basis stays."""

VARIED_MIX: Mix = "heavy-tail light"

LONG = {"local_steps": 20, "n_train": 400}
"""Rounds as long as the server's default has them, on as much more text."""

Changes = Mapping[str, int]

Case = tuple[str, Mix]
"""A rule on a mix of ranks."""

SAME = {"flora": "fresh"}
"""Without a server step they are one mathematics (aggregator/merge/rules/flora.py), to the last bit: run once."""


def rules_of(mix: Mix) -> list[str]:
    """Those that can merge such a fleet."""
    from aggregator.merge.rules import RULES

    fitting = [name for name, rule in RULES.items() if mix == "equal" or not rule.TRAITS.needs_equal_ranks]
    return [name for name in fitting if name not in SAME]


def cases(rules: Sequence[str], mixes: Sequence[Mix]) -> list[Case]:
    """Every one of these rules on every one of these mixes that it can merge."""
    return [(rule, mix) for mix in mixes for rule in rules_of(mix) if rule in rules]


def tuning(case: Case, learning_rate: float, changes: Changes) -> Setting:
    rule, mix = case
    return msgspec.structs.replace(TUNING, rule=rule, learning_rate=learning_rate, mix=mix, **changes)


def traffic(rule: str, mix: Mix) -> Setting:
    """A fleet that sends what any of this rule and mix does, and learns next to nothing: bytes follow from shapes,
    ranks and what changed, not from what was learned. Downloads are differences, as they are between real machines."""
    return Setting(
        rule=rule, learning_rate=0.004, seed=0, mix=mix, local_steps=1, n_train=8, n_held_out=1, differences=True
    )


def with_traffic(history: History, measured: History) -> History:
    """The losses of the one beside the bytes of the other."""
    by_round = {point.round: point for point in measured.points}
    points = tuple(
        msgspec.structs.replace(
            point, up_bytes=by_round[point.round].up_bytes, down_bytes=by_round[point.round].down_bytes
        )
        for point in history.points
    )
    return msgspec.structs.replace(history, points=points)


def best_rate(histories: Iterable[History]) -> float:
    """The learning rate with the lowest mean loss after the last round; of equals the smaller one."""
    finished = [history for history in histories if not history.failed]
    return min(finished, key=lambda history: (history.last.mean, history.setting.learning_rate)).setting.learning_rate


def extension(rates: Sequence[float], best: float) -> float | None:
    """The next rate to try where the best is the largest or the smallest tried; None where it is neither."""
    if best == max(rates):
        return best * 2
    return best / 2 if best == min(rates) else None


def tune(
    runs: Runs, wanted: Sequence[Case], grid: Sequence[float], changes: Changes, most_extensions: int
) -> tuple[dict[Case, float], list[History]]:
    """Every case's learning rate, and the runs that decided."""
    tried = {case: list(grid) for case in wanted}
    for _ in range(1 + most_extensions):
        tuned = runs.run(tuning(case, rate, changes) for case in wanted for rate in tried[case])
        best = {case: best_rate(one for one in tuned if case_of(one) == case) for case in wanted}
        wider = {case: extension(tried[case], best[case]) for case in wanted}
        for case, rate in wider.items():
            tried[case] += [] if rate is None else [rate]
        if not any(wider.values()):
            break
    return best, tuned


def case_of(history: History) -> Case:
    return history.setting.rule, history.setting.mix


def main_settings(
    rates: Mapping[Case, float], partitions: Sequence[Partition], mixes: Sequence[Mix], changes: Changes
) -> Iterator[Setting]:
    """Every rule on every fleet; the first seeds first, so that a study that is stopped has whole comparisons."""
    for partition in partitions:
        for mix in mixes:
            for seed in SEEDS:
                for (rule, mixed), rate in rates.items():
                    setting = Setting(
                        rule=rule, learning_rate=rate, seed=seed, mix=mix, partition=partition, n_written=N_WRITTEN
                    )
                    if mixed == mix:
                        yield msgspec.structs.replace(setting, **changes)


def varied_settings(rule: str, rate: float, changes: Changes) -> Iterator[Setting]:
    """The rule as it is, and with each of its variations, whose words come after those of `changes`."""
    base = Setting(rule=rule, learning_rate=rate, seed=0, mix=VARIED_MIX, n_written=N_WRITTEN)
    for variation in ({}, *VARIED[rule]):
        for seed in SEEDS:
            yield msgspec.structs.replace(base, seed=seed, **{**changes, **variation})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_options(parser)
    options = parser.parse_args()
    runs = begin(options)
    rules = options.rules or rules_of("equal")
    changes: Changes = LONG if options.long else {}
    wanted = cases(rules, options.mixes)
    rates, tuned = tune(runs, wanted, options.learning_rates, changes, MOST_EXTENSIONS)
    settings = list(main_settings(rates, options.partitions, options.mixes, changes))
    varied = {rule: list(varied_settings(rule, rates[rule, VARIED_MIX], changes)) for rule in options.vary}
    if not options.known:
        runs.run(settings + [one for some in varied.values() for one in some])
    sent = {
        (one.setting.rule, one.setting.mix): one
        for one in runs.run(dict.fromkeys(traffic(setting.rule, setting.mix) for setting in settings))
    }
    if options.report:
        from benchmarks.merge_rules.report import write_report  # imports matplotlib

        write_report(
            options.report / ("long-rounds" if options.long else "rules"),
            command("benchmarks.merge_rules"),
            runs.machine,
            tuned=tuned,
            rates=rates,
            main=[with_traffic(one, sent[one.setting.rule, one.setting.mix]) for one in runs.known(settings)],
            varied={rule: runs.known(some) for rule, some in varied.items()},
            partitions=options.partitions,
            mixes=options.mixes,
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.add_argument("--partitions", nargs="+", choices=PARTITIONS, default=PARTITIONS)
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=MIXES)
    parser.add_argument("--rules", nargs="+", help="these alone")
    parser.add_argument("--learning-rates", type=float, nargs="+", default=LEARNING_RATES)
    parser.add_argument("--report", type=Path, help="write tables and plots into this folder")
    parser.add_argument("--known", action="store_true", help="report what has run, and run no more than the tuning")
    parser.add_argument("--long", action="store_true", help=f"rounds of {LONG['local_steps']} steps")
    parser.add_argument("--vary", nargs="*", choices=tuple(VARIED), default=(), help="vary the settings of these rules")


if __name__ == "__main__":
    main()
