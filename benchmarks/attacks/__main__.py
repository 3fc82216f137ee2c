"""Bad boards and defences: what the boards do to a run, and how much of that each defence prevents.

    python -m benchmarks.attacks --json attacks.json    # on two cores; goes on where it was interrupted
    python -m benchmarks.attacks --quick                # to see that it works; its numbers mean nothing

A fleet of ten boards trains the builtin base, as in benchmarks.simulation.federation. One to four of them are bad:
they train as the others do, and then turn round what they changed (sign-flip), make it ten times as large (scaled),
send Gaussian noise of three times its size (noise), each with their sketches likewise; or they train on targets that
do not belong to their inputs (shuffled labels). Profiles are honest but for shuffled labels. Bad boards send first in
every round. A defence is told the true share of bad boards; every defence stands behind the server's screening.
"absent" is the run without the bad boards: what a perfect defence would reach.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import get_args

import msgspec

from aggregator.merge.defences.defended import DEFENCES
from aggregator.merge.rules import RULES
from benchmarks.attacks.kinds import ATTACKS, Attack
from benchmarks.attacks.runs import NOTHING, SCREENING, AttackStudy, Run, Work, run_one
from benchmarks.simulation.histories import QUICK
from benchmarks.simulation.setting import Mix, Setting
from benchmarks.simulation.texts import FORMS, Partition, load_pools
from benchmarks.study.cli import command, study_parser, work_folder
from benchmarks.study.runner import Runner
from benchmarks.study.tables import spread_text, table
from edge_client.host.machine import describe_machine

SHARES = (0.1, 0.2, 0.3, 0.4)

SETTING = Setting(rule="", learning_rate=0.01, seed=0, mix="equal", partition="dirichlet-1", rounds=10)
"""`mix`, `partition` and `learning_rate` can be chosen; rule and seed are each run's own."""


def main() -> None:
    options = _options()
    study = AttackStudy(machine=describe_machine("torch"), settings=_fleet(options))
    with work_folder(options) as folder, Runner(study, options.json, options.processes) as runner:
        works = list(_works(options))
        if runner.missing(works):
            load_pools(options.data_folder, folder, study.settings.partition)  # once, and not in every worker
        fixed = {"settings": study.settings, "data_folder": options.data_folder, "folder": folder}
        runner.run(works, partial(run_one, **fixed))
        study = runner.study
    print(f"`{command('benchmarks.attacks')}`\n\n{study.ground}; one thread for each run\n")
    print(_described(study.settings, options.seeds))
    for rule in options.rules:
        print(f"\n### {rule}\n\n{_table(study, rule, options)}")


def _fleet(options: argparse.Namespace) -> Setting:
    changes = {name: getattr(options, name) for name in ("mix", "partition", "learning_rate", "rounds")}
    changes |= FORMS.get(options.partition or SETTING.partition, {})
    if options.quick:
        changes |= QUICK
    return msgspec.structs.replace(SETTING, **{key: value for key, value in changes.items() if value is not None})


def _works(options: argparse.Namespace) -> Iterator[Work]:
    """Every run of the tables, those that say most first."""
    for seed in options.seeds:
        for rule in options.rules:
            for attack, share, guard in _cells(rule, options):
                yield Work(rule=rule, attack=attack, share=share, guard=guard, seed=seed)


def _cells(rule: str, options: argparse.Namespace) -> Iterator[tuple[Attack, float, str]]:
    for guard in _guards(rule, options):
        yield "none", 0.0, guard
    for share in options.shares:
        yield "absent", share, NOTHING
        for attack in options.attacks:
            for guard in _guards(rule, options):
                yield attack, share, guard


def _guards(rule: str, options: argparse.Namespace) -> tuple[str, ...]:
    traits = RULES[rule].TRAITS
    return tuple(guard for guard in options.guards if guard not in DEFENCES or DEFENCES[guard].fits(traits))


# --- tables --------------------------------------------------------------------------------------------------------


def _described(fleet: Setting, seeds: Sequence[int]) -> str:
    return (
        f"Ten boards, ranks {fleet.mix}, text {fleet.partition}, {fleet.rounds} rounds of {fleet.local_steps} steps of "
        f"{fleet.batch} examples, learning rate {fleet.learning_rate:g}; held-out loss of the good boards in nats per "
        f"target token, mean{' ± standard deviation' if len(seeds) > 1 else ''} of {len(seeds)} "
        f"seed{'s' if len(seeds) > 1 else ''}."
    )


def _table(study: AttackStudy, rule: str, options: argparse.Namespace) -> str:
    """A rule's losses by attack and share of bad boards, a column for each guard."""
    guards = _guards(rule, options)
    runs = {run.work: run for run in study.runs}

    def loss(attack: Attack, share: float, guard: str) -> str:
        works = [Work(rule=rule, attack=attack, share=share, guard=guard, seed=seed) for seed in options.seeds]
        return _loss_text([runs[work].loss for work in works if work in runs])

    rows = []
    attacks: list[tuple[Attack, float]] = [("none", 0.0)]
    attacks += [(attack, share) for attack in options.attacks for share in options.shares]
    for attack, share in attacks:
        absent = loss("absent", share, NOTHING) if share else ""
        losses = [loss(attack, share, guard) for guard in guards]
        rows.append([attack, f"{share:.0%}", absent, *losses, _refused(study.runs, rule, attack, share)])
    return table(["attack", "bad", "absent", *guards, "refused by screening"], rows)


def _loss_text(losses: Sequence[float | None]) -> str:
    finite = [loss for loss in losses if loss is not None]
    if not losses or len(finite) < len(losses):
        return "not finite" if losses else ""
    return spread_text(finite, 3)


def _refused(runs: Sequence[Run], rule: str, attack: Attack, share: float) -> str:
    """Parts of the bad and of the good boards' updates that screening alone refused."""
    wanted = rule, attack, share, SCREENING
    screened = [run for run in runs if (run.work.rule, run.work.attack, run.work.share, run.work.guard) == wanted]
    if not screened:
        return ""
    return f"{fmean(run.refused_bad for run in screened):.0%} / {fmean(run.refused_good for run in screened):.0%}"


def _options() -> argparse.Namespace:
    guards = (NOTHING, SCREENING, *DEFENCES)
    parser = study_parser(__doc__)
    parser.add_argument("--rules", nargs="+", choices=tuple(RULES), default=["fedsvd"])
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--guards", nargs="+", choices=guards, default=list(guards))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="of boards that are bad")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--mix", choices=get_args(Mix), help=f"ranks (default: {SETTING.mix})")
    parser.add_argument("--partition", choices=get_args(Partition), help=f"of text (default: {SETTING.partition})")
    parser.add_argument("--learning-rate", type=float, help=f"default: {SETTING.learning_rate:g}")
    parser.add_argument("--rounds", type=int, help=f"default: {SETTING.rounds}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
