"""The tables of benchmarks.merge_rules, in markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

import msgspec

from benchmarks.merge_rules.cases import contestant_of
from benchmarks.simulation.histories import Cost, Measure, cost_to, difference, mean_loss, total_bytes, worst_loss
from benchmarks.simulation.setting import History, Mix, Point, Setting, changed
from benchmarks.simulation.texts import Partition
from benchmarks.study.tables import spread, table

REFERENCE = "fedsvd"
"""The default rule, with which the others are compared."""

GAIN = 0.75
"""Bytes are counted to the loss at which a fleet has made this part of the best rule's gain over the base."""

Cells = Mapping[Mix, Mapping[str, Sequence[History]]]
"""The runs of one partition: by mix and rule, a history per seed."""


def cells(histories: Sequence[History], partition: Partition, mixes: Sequence[Mix]) -> Cells:
    """The histories of one partition, sorted by mix and rule; a mix without any is left out."""
    by_mix: dict[Mix, dict[str, list[History]]] = {mix: {} for mix in mixes}
    for history in sorted(histories, key=lambda history: history.setting.seed):
        setting = history.setting
        if setting.partition == partition and setting.mix in by_mix:
            by_mix[setting.mix].setdefault(contestant_of(setting), []).append(history)
    return {mix: rules for mix, rules in by_mix.items() if rules}


def rates_table(tuned: Sequence[History], best: Mapping[str, float]) -> str:
    """Mean loss by rule and learning rate."""
    rates = sorted({history.setting.learning_rate for history in tuned})
    rows = []
    for rule in best:
        losses = {history.setting.learning_rate: history for history in tuned if contestant_of(history.setting) == rule}
        rows.append([rule, *(_rate_cell(losses.get(rate), rate == best[rule]) for rate in rates)])
    return table(["", *(f"{rate:g}" for rate in rates)], rows)


def partition_tables(partition: Cells) -> Iterator[tuple[str, str]]:
    """The tables of one partition, as (title, table)."""
    yield "Held-out loss, mean board", _by_mix(partition, lambda runs, _: spread_cell(runs, mean_loss, 3), _mean)
    yield (
        f"The same, less {REFERENCE}'s",
        _by_mix(partition, lambda runs, all_runs: _difference_cell(runs, all_runs, mean_loss)),
    )
    yield "Held-out loss, worst tenth", _by_mix(partition, lambda runs, _: spread_cell(runs, worst_loss, 3), _worst)
    yield (
        f"The same, less {REFERENCE}'s",
        _by_mix(partition, lambda runs, all_runs: _difference_cell(runs, all_runs, worst_loss)),
    )
    yield "ROUGE-L", _by_mix(partition, lambda runs, _: spread_cell(runs, _rouge_points, 1))
    yield "MB up and down per board and round", _by_mix(partition, lambda runs, _: _traffic_cell(runs))
    yield (
        f"MB of the whole fleet, up and down, to {GAIN:.0%} of the best rule's gain",
        _by_mix(partition, _bytes_cell),
    )


def variants_table(runs: Sequence[History], base: Setting) -> str:
    """Losses and bytes of runs that differ from `base` in one setting each."""
    by_setting: dict[Setting, list[History]] = {}
    for history in runs:
        by_setting.setdefault(msgspec.structs.replace(history.setting, seed=base.seed), []).append(history)
    reference = by_setting.get(base, [])
    rows = []
    for setting, histories in by_setting.items():
        delta, worst = (difference(histories, reference, measure) for measure in (mean_loss, worst_loss))
        rows.append(
            [
                "as it is" if setting == base else changed(setting, base),
                spread([mean_loss(history) for history in histories]).text(3),
                delta.text(3) if delta and setting != base else "",
                worst.text(3) if worst and setting != base else "",
                _traffic_cell(histories),
            ]
        )
    return table(["", "loss", "difference", "in the worst tenth", "MB up / down"], rows)


def _by_mix(
    partition: Cells,
    cell: Callable[[Sequence[History], Mapping[str, Sequence[History]]], str],
    base: Callable[[Point], float] | None = None,
) -> str:
    """A table of a row per rule. `base` measures the bare base, which has a row then: any rule's runs began with it."""
    columns = partition.values()
    rules = dict.fromkeys(rule for runs in columns for rule in runs)
    rows = [[rule, *(cell(runs[rule], runs) if runs.get(rule) else "–" for runs in columns)] for rule in rules]
    if base is not None:
        rows.insert(0, ["base, no adapter", *(_base_cell(next(iter(runs.values())), base) for runs in columns)])
    return table(["", *partition], rows)


def _base_cell(runs: Sequence[History], measure: Callable[[Point], float]) -> str:
    return spread([measure(history.points[0]) for history in runs]).text(3)


def spread_cell(runs: Sequence[History], measure: Measure, digits: int) -> str:
    """A measure over the seeds, and how many runs diverged."""
    return spread([measure(history) for history in runs]).text(digits) + _failures(runs)


def _difference_cell(runs: Sequence[History], all_runs: Mapping[str, Sequence[History]], measure: Measure) -> str:
    if contestant_of(runs[0].setting) == REFERENCE:
        return ""
    delta = difference(runs, all_runs.get(REFERENCE, []), measure)
    return "–" if delta is None else delta.text(3) + _failures(runs)


def target_loss(runs: Sequence[History], all_runs: Mapping[str, Sequence[History]]) -> float:
    """The loss at which fleets that began as `runs` did have made GAIN of the best rule's gain."""
    base = fmean(history.points[0].mean for history in runs)
    best = min(fmean(mean_loss(history) for history in others) for others in all_runs.values())
    return base - GAIN * (base - best)


def cost_cell(runs: Sequence[History], target: float, cost: Cost, unit: float) -> str:
    """The mean cost of runs to a loss, and how many reach it where not all do."""
    reached = [spent for history in runs if (spent := cost_to(history, target, cost)) is not None]
    if not reached:
        return "not reached"
    note = "" if len(reached) == len(runs) else f" ({len(reached)} of {len(runs)})"
    return f"{fmean(reached) / unit:.0f}{note}"


def _failures(runs: Sequence[History]) -> str:
    count = sum(bool(history.failed) for history in runs)
    return f" ({count} diverged)" if count else ""


def _mean(point: Point) -> float:
    return point.mean


def _worst(point: Point) -> float:
    return point.worst


def _rouge_points(history: History) -> float:
    return 100 * (history.rouge_l or 0.0)


def _traffic_cell(runs: Sequence[History]) -> str:
    up = fmean(history.last.up_bytes / _n_updates(history) for history in runs)
    down = fmean(history.last.down_bytes / _n_updates(history) for history in runs)
    return f"{up / 1e6:.2f} / {down / 1e6:.2f}"


def _n_updates(history: History) -> int:
    """Updates of a run; 1 for a run that failed at once, to divide by."""
    return max(1, history.last.round * len(history.last.losses))


def _bytes_cell(runs: Sequence[History], all_runs: Mapping[str, Sequence[History]]) -> str:
    return cost_cell(runs, target_loss(runs, all_runs), total_bytes, 1e6)


def _rate_cell(history: History | None, is_best: bool) -> str:
    if history is None:
        return ""
    text = "diverged" if history.failed else f"{history.last.mean:.3f}"
    return f"**{text}**" if is_best else text
