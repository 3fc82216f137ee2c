"""The tables of benchmarks.selection, in markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import get_args

from benchmarks.selection.runs import SCOPE, Run, SelectionStudy
from benchmarks.selection.strands import Selection, budget
from benchmarks.simulation.strands import weights
from benchmarks.study.tables import spread_text, table

TITLES: dict[Selection, str] = {
    "sketch": "sketch, Σσ²",
    "adalora": "AdaLoRA's sensitivity",
    "magnitude_gradient": "magnitude·gradient",
    "random": "random strands",
    "q,v": "q,v everywhere",
}

REFERENCES: tuple[Selection, ...] = ("q,v", "random", "sketch")
"""Selections that losses are compared with; the last one, the plainest score, over all sets only."""

_COLUMNS = ("", "learning rate", "parameters", "weights", "encoder's", "loss", "minus q,v", "minus random")


def print_study(study: SelectionStudy, names: Sequence[str], command: str) -> None:
    settings = study.settings
    print(f"`{command}`\n\n{study.ground}; one thread for each run\n")
    print(
        f"{settings.rounds} rounds of {settings.local_steps} steps of {settings.batch} examples, "
        f"{settings.max_source_tokens}/{settings.max_target_tokens} tokens; {settings.n_train} training and "
        f"{settings.n_test} test examples; learning rate the best of "
        f"{', '.join(f'{rate:g}' for rate in settings.learning_rates)} on {settings.n_validation} validation examples; "
        f"mean ± standard deviation of {len(settings.seeds)} seeds, differences between runs of the same seed.\n"
    )
    for qv_rank in settings.qv_ranks:
        print(f"### {_budget_name(qv_rank)}\n")
        for name in names:
            print(f"{name}, base without training {study.base_losses[name]:.3f}:\n\n{_table(study, name, qv_rank)}\n")
    print(f"### All sets\n\n{_summary(study, names)}")


def _budget_name(qv_rank: int) -> str:
    return f"{budget(weights(SCOPE), qv_rank):,} parameters (q,v at rank {qv_rank})"


def _table(study: SelectionStudy, name: str, qv_rank: int) -> str:
    rows = []
    for selection, title in TITLES.items():
        runs = study.of(name, "test", qv_rank, selection)
        cells = [
            f"{runs[0].work.learning_rate:g}",
            f"{fmean(run.n_trained for run in runs):,.0f}",
            f"{fmean(run.n_weights for run in runs):.0f}",
            f"{fmean(run.encoder_share for run in runs):.0%}",
            spread_text([run.loss for run in runs], 3),
            *(_difference(study, [name], qv_rank, selection, other) for other in REFERENCES[:2]),
        ]
        rows.append([title, *cells])
    return table(_COLUMNS, rows)


def _summary(study: SelectionStudy, names: Sequence[str]) -> str:
    """Mean difference of the runs of the same set and seed, and how many of them are better."""
    rows = []
    for qv_rank in study.settings.qv_ranks:
        for selection in get_args(Selection):
            cells = []
            for other in REFERENCES:
                deltas = _differences(study, names, qv_rank, selection, other)
                better = f"{sum(delta < 0 for delta in deltas)} of {len(deltas)}" if selection != other else "–"
                cells += [_difference(study, names, qv_rank, selection, other), better]
            rows.append([_budget_name(qv_rank), TITLES[selection], *cells])
    columns = [column for other in REFERENCES for column in (f"minus {other}", "better")]
    return table(["budget", "", *columns], rows, n_left=2)


def _difference(
    study: SelectionStudy, names: Sequence[str], qv_rank: int, selection: Selection, other: Selection
) -> str:
    if selection == other:
        return "–"
    return spread_text(_differences(study, names, qv_rank, selection, other), 3, signed=True)


def _differences(
    study: SelectionStudy, names: Sequence[str], qv_rank: int, selection: Selection, other: Selection
) -> list[float]:
    """Loss with `selection` minus loss with `other`, set by set and seed by seed."""
    pairs: list[tuple[Run, Run]] = []
    for name in names:
        runs = [study.of(name, "test", qv_rank, which) for which in (selection, other)]
        pairs += zip(*runs, strict=True)
    return [run.loss - reference.loss for run, reference in pairs]
