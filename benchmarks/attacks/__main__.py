"""What do bad boards do to a run, and what does each defence make of them?

    python -m benchmarks.attacks --json attacks.json    # on two cores; goes on where it was interrupted
    python -m benchmarks.attacks --quick                # to see that it works; its numbers mean nothing

A fleet of ten boards trains the builtin base, as in benchmarks.simulation.federation. One to four of them are bad:
they train as the others do, and then turn round what they changed (sign-flip), make it ten times as large (scaled),
send Gaussian noise of three times its size (noise), each with their sketches likewise; or they train on targets that
do not belong to their inputs (shuffled labels). Profiles are honest but for shuffled labels. Bad boards send first in
every round. A defence is told the true share of bad boards; every defence stands behind the server's screening.
"absent" is the run without the bad boards: what a perfect defence would reach."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean, stdev
from typing import get_args

import msgspec

from aggregator.merge.defences.defended import DEFENCES
from aggregator.merge.rules import RULES
from benchmarks.attacks.kinds import ATTACKS, Attack
from benchmarks.attacks.results import NOTHING, SCREENING, Run, Study, Work
from benchmarks.simulation.setting import Mix, Setting
from benchmarks.simulation.texts import Partition, load_pools
from benchmarks.study.file import Store
from benchmarks.study.machine import describe_machine
from edge_client.host.worker_memory import prepare_for_training

SHARES = (0.1, 0.2, 0.3, 0.4)

SETTING = Setting(rule="", learning_rate=0.01, seed=0, mix="equal", partition="dirichlet-1", rounds=10)
"""`mix`, `partition` and `learning_rate` can be chosen; rule and seed are each run's own."""


def main() -> None:
    options = _options()
    os.environ["OMP_NUM_THREADS"] = "1"  # numpy's merging as well
    prepare_for_training()
    store = Store(options.json, Study(machine=describe_machine("torch"), settings=_fleet(options)))
    _run_all(store, options)
    command = shlex.join(["python", "-m", "benchmarks.attacks", *sys.argv[1:]])
    print(f"`{command}`\n\n{store.study.machine}; one thread for each run\n")
    print(_described(store.study.settings, options.seeds))
    for rule in options.rules:
        print(f"\n### {rule}\n\n{_table(store.study, rule, options)}")


def _fleet(options: argparse.Namespace) -> Setting:
    changes = {name: getattr(options, name) for name in ("mix", "partition", "learning_rate", "rounds")}
    if options.quick:
        changes |= {"rounds": 2, "local_steps": 1, "n_train": 16, "n_held_out": 2}
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
    facts = RULES[rule].TRAITS
    return tuple(guard for guard in options.guards if guard not in DEFENCES or DEFENCES[guard].fits(facts))


def _run_all(store: Store[Study], options: argparse.Namespace) -> None:
    """Fill the store. Runs that it has already are not repeated."""
    left = [work for work in _works(options) if not store.study.has(work)]
    if not left:
        return
    from benchmarks.attacks import runs  # imports torch

    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(options.processes, context, runs.begin_worker) as pool,
    ):
        fixed = store.study.settings, options.data_folder, Path(folder) / "pools.json"
        load_pools(options.data_folder, fixed[2])  # once, and not in every worker
        futures = [pool.submit(runs.run, *fixed, work) for work in left]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                store.add(future.result())
                _tell(future.result(), done, len(left))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what would still run could not be kept
            raise


def _tell(run: Run, done: int, total: int) -> None:
    work, loss = run.work, "not finite" if run.loss is None else f"{run.loss:.3f}"
    what = f"{work.rule}, {work.attack} {work.share:.0%}, {work.guard}, seed {work.seed}"
    print(f"{done}/{total}: {what}: {loss}, {run.cpu_s:.0f} s", file=sys.stderr, flush=True)


# --- tables --------------------------------------------------------------------------------------------------------


def _described(fleet: Setting, seeds: Sequence[int]) -> str:
    return (
        f"Ten boards, ranks {fleet.mix}, text {fleet.partition}, {fleet.rounds} rounds of {fleet.local_steps} steps of "
        f"{fleet.batch} examples, learning rate {fleet.learning_rate:g}; held-out loss of the good boards in nats per "
        f"target token, mean{' ± standard deviation' if len(seeds) > 1 else ''} of {len(seeds)} "
        f"seed{'s' if len(seeds) > 1 else ''}."
    )


def _table(study: Study, rule: str, options: argparse.Namespace) -> str:
    guards = _guards(rule, options)
    rows: list[tuple[Attack, float]] = [("none", 0.0)]
    rows += [(attack, share) for attack in options.attacks for share in options.shares]
    lines = [
        f"| attack | bad | absent | {' | '.join(guards)} | refused by screening |",
        "| --- |" + " ---: |" * (len(guards) + 3),
    ]
    for attack, share in rows:
        cells = [_spread(study.losses(rule, attack, share, guard, options.seeds)) for guard in guards]
        absent = _spread(study.losses(rule, "absent", share, NOTHING, options.seeds)) if share else ""
        refused = _refused(study, rule, attack, share)
        lines.append(f"| {attack} | {share:.0%} | {absent} | {' | '.join(cells)} | {refused} |")
    return "\n".join(lines)


def _spread(losses: Sequence[float | None]) -> str:
    finite = [loss for loss in losses if loss is not None]
    if not losses or len(finite) < len(losses):
        return "not finite" if losses else ""
    return f"{fmean(finite):.3f}" + (f" ± {stdev(finite):.3f}" if len(finite) > 1 else "")


def _refused(study: Study, rule: str, attack: Attack, share: float) -> str:
    """Of the bad and the good boards' updates."""
    runs = [r for r in study.runs if (r.work.rule, r.work.attack, r.work.share) == (rule, attack, share)]
    screened = [run for run in runs if run.work.guard == SCREENING]
    if not screened:
        return ""
    return f"{fmean(r.refused_bad for r in screened):.0%} / {fmean(r.refused_good for r in screened):.0%}"


def _options() -> argparse.Namespace:
    guards = (NOTHING, SCREENING, *DEFENCES)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-folder", type=Path, default=Path("../shared/data"), help="where the published sets lie")
    parser.add_argument("--quick", action="store_true", help="tiny settings")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one thread each (default: 2)")
    parser.add_argument("--rules", nargs="+", choices=tuple(RULES), default=["weave"])
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--guards", nargs="+", choices=guards, default=list(guards))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="of boards that are bad")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--mix", choices=get_args(Mix), help=f"ranks (default: {SETTING.mix})")
    parser.add_argument("--partition", choices=get_args(Partition), help=f"of text (default: {SETTING.partition})")
    parser.add_argument("--learning-rate", type=float, help=f"default: {SETTING.learning_rate:g}")
    parser.add_argument("--rounds", type=int, help=f"default: {SETTING.rounds}")
    parser.add_argument("--json", type=Path, help="keep all numbers in this file, and go on from what is in it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
