"""The report of benchmarks.merge_rules: one markdown file, and plots beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.merge_rules.cases import SAME, Case
from benchmarks.merge_rules.plots import plot
from benchmarks.merge_rules.tables import cells, partition_tables, rates_table, variants_table
from benchmarks.simulation.setting import RANKS, History, Mix, Setting
from benchmarks.simulation.texts import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that the report tells.

    Attributes:
        command, ground: how the study was run, where, and on which base.
        tuned, rates: the runs that chose learning rates, and each case's choice.
        main: the runs that are compared.
        varied: by rule, runs with other settings.
        partitions, mixes: those that have tables and plots, in this order.
    """

    command: str
    ground: str
    tuned: Sequence[History]
    rates: Mapping[Case, float]
    main: Sequence[History]
    varied: Mapping[str, Sequence[History]]
    partitions: Sequence[Partition]
    mixes: Sequence[Mix]


def write_report(path: Path, report: Report) -> None:
    """Write `path`.md, and beside it an SVG per partition."""
    path.parent.mkdir(parents=True, exist_ok=True)
    setup = _setup(report.main or report.tuned, report.ground)
    parts = ["# Merge rules on simulated fleets", "", f"`{report.command}`", "", setup, ""]
    sames = SAME.items()
    parts += [f"{name} is not listed: without a server step it is {other}, to the last bit." for name, other in sames]
    parts += ["", "## Learning rates"]
    for fleet in dict.fromkeys((case.partition, case.mix) for case in report.rates):
        best = {case.contestant: rate for case, rate in report.rates.items() if (case.partition, case.mix) == fleet}
        tuned = [run for run in report.tuned if (run.setting.partition, run.setting.mix) == fleet]
        parts += ["", f"### {', '.join(fleet)}", "", rates_table(tuned, best)]
    parts.append("")
    for partition in report.partitions:
        parts += _partition(path, report.main, partition, report.mixes)
    for rule, histories in report.varied.items():
        base = msgspec.structs.replace(histories[0].setting, seed=0)
        parts += [f"## Settings of {rule}", "", variants_table(histories, base), ""]
    path.with_suffix(".md").write_text("\n".join(parts), encoding="utf-8")


def _partition(path: Path, histories: Sequence[History], partition: Partition, mixes: Sequence[Mix]) -> Iterator[str]:
    runs = cells(histories, partition, mixes)
    if not runs:
        return
    name = f"{path.name}-{partition}.svg"
    plot(runs, path.with_name(name))
    yield from (f"## Partition: {partition}", "", f"![loss against rounds and bytes]({name})", "")
    for title, text in partition_tables(runs):
        yield from (f"### {title}", "", text, "")


def _lengths(histories: Sequence[History]) -> str:
    """Most tokens of source and target, by partition where they differ."""
    lengths = {
        run.setting.partition: f"{run.setting.max_source_tokens}/{run.setting.max_target_tokens} tokens"
        for run in histories
    }
    if len(set(lengths.values())) == 1:
        return next(iter(lengths.values()))
    return ", ".join(f"{text} of {partition}" for partition, text in lengths.items())


def _setup(histories: Sequence[History], ground: str) -> str:
    setting: Setting = histories[0].setting
    cpu_s = sum(history.cpu_s for history in histories)
    mixes = "; ".join(f"{mix} {' '.join(map(str, ranks))}" for mix, ranks in RANKS.items())
    return (
        f"{ground}; one thread a run. {len(RANKS[setting.mix])} boards, {setting.rounds} rounds of "
        f"{setting.local_steps} steps of {setting.batch} examples, {_lengths(histories)}; every decoder weight is "
        f"trained. Ranks: {mixes}; which board has which is drawn by the seed. {setting.n_train} training and "
        f"{setting.n_held_out} held-out examples a board. max_rank {setting.max_rank}, server_rank "
        f"{setting.server_rank}, sketches every {setting.sketch_every} rounds, uploads in {setting.upload}. Mean ± "
        f"standard deviation over seeds; differences are of pairs of equal seeds, in bold where their 95 % interval "
        f"leaves zero out. Runs took {cpu_s / 60:.0f} CPU minutes, {cpu_s / len(histories):.0f} s each."
    )
