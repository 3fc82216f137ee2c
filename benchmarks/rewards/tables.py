"""The tables of benchmarks.rewards, in markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.rewards.runs import CONDITIONS, Judged, RewardStudy, Run
from benchmarks.study.tables import paired, spread_text, table

COLUMNS: Mapping[str, tuple[Callable[[Judged], float], int]] = {
    "overlap": (lambda judged: judged.greedy["overlap"], 3),
    "tool call": (lambda judged: judged.greedy["tool_call"], 3),
    "words": (lambda judged: judged.greedy_words, 2),
    "overlap, drawn": (lambda judged: judged.sampled["overlap"], 3),
    "tool call, drawn": (lambda judged: judged.sampled["tool_call"], 3),
    "words, drawn": (lambda judged: judged.sampled_words, 2),
    "KL": (lambda judged: judged.kl, 3),
    "loss": (lambda judged: judged.loss, 3),
}
"""What is shown, by title, and its digits: of the likeliest answers first, then of those that are drawn; loss is that
of the right answers."""

OPPOSITES = ("long", "short")
"""What the two boards of the opposite kinds want, in their order."""


def print_study(study: RewardStudy) -> None:
    """Print all that the study has."""
    settings = study.settings
    print(f"{study.ground}; one thread\n")
    print(
        f"{settings.n_boards} boards of {settings.n_train} examples; {settings.warm_rounds} rounds of "
        f"{settings.warm_steps} steps of {settings.warm_batch} from right answers at {settings.warm_learning_rate:g}, "
        f"then {settings.rounds} rounds of {settings.local_steps} steps of {settings.batch} examples with "
        f"{settings.samples} answers each at {settings.learning_rate:g}, and {settings.own_steps} steps of each board "
        f"by itself where boards want different things; {settings.max_source_tokens}/"
        f"{settings.max_target_tokens} tokens; judged on {settings.n_test} contexts, with {settings.samples} drawn "
        f"answers each; mean ± standard deviation of {len(settings.seeds)} seeds.\n"
    )
    print(f"### One board\n\n{_agreed(study)}\n")
    print(f"### Boards that want opposites\n\n{_opposite(study)}\n")


def _agreed(study: RewardStudy) -> str:
    rows = [["after right answers", *_cells([run.warm for run in _one_each(study.runs)])]]
    for name, condition in CONDITIONS.items():
        judged = [run.merged for run in _of(study, name)]
        if judged and len(condition.rewards) == 1:
            rows.append([name, *_cells(judged)])
            rows.append([f"{name}: gain", *_gains(_of(study, name))])
    return table(["then", *COLUMNS], rows)


def _opposite(study: RewardStudy) -> str:
    rows = []
    for name, condition in CONDITIONS.items():
        if len(condition.rewards) == 1 or not (runs := _of(study, name)):
            continue
        rows.append([f"{name}: merged", *_cells([run.merged for run in runs])])
        for board, wants in enumerate(OPPOSITES):
            rows.append([f"{name}: {wants}", *_cells([run.own[board] for run in runs])])
        if len(runs) > 1:
            rows.append([f"{name}: {OPPOSITES[0]} less {OPPOSITES[1]}", *_differences([run.own[:2] for run in runs])])
    return table(["", *COLUMNS], rows)


def _cells(judged: Sequence[Judged]) -> list[str]:
    return [spread_text([value(each) for each in judged], digits) for value, digits in COLUMNS.values()]


def _gains(runs: Sequence[Run]) -> list[str]:
    """The differences from the warm start; nothing where there is one seed alone."""
    pairs = [(run.merged, run.warm) for run in runs]
    return _differences(pairs) if len(pairs) > 1 else [""] * len(COLUMNS)


def _differences(pairs: Sequence[tuple[Judged, ...]]) -> list[str]:
    """First less second, by pairs of seeds, in bold where their 95 % interval leaves zero out."""
    return [
        paired([value(first) - value(second) for first, second in pairs]).text(digits)
        for value, digits in COLUMNS.values()
    ]


def _of(study: RewardStudy, name: str) -> list[Run]:
    return [run for run in study.runs if run.condition == name]


def _one_each(runs: Sequence[Run]) -> list[Run]:
    """A run of each seed: all begin with the same warm start."""
    return list({run.seed: run for run in runs}.values())
