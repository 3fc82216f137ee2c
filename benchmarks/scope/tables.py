"""The tables and verdicts of benchmarks.scope, in markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.scope.runs import Condition, Point, Run, ScopeStudy
from benchmarks.study.tables import Difference, paired, spread_text, table

ROWS: tuple[tuple[str, Condition, int], ...] = (
    ("base, no adapter", "base", 0),
    ("all scope, every weight", "all", 0),
    ("all scope, strands by value", "all, by value", 0),
    ("decoder scope, equal steps", "decoder", 0),
    ("decoder scope, equal time", "decoder", 1),
    ("decoder scope, equal ranks", "decoder, same ranks", 0),
)
"""(title, condition, which of its points)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of decoder scope (`at`: which of their points) against runs of all scope with the same seeds."""

    title: str
    condition: Condition
    at: int
    reference: Condition


MAIN = (
    Comparison("equal parameters and steps", "decoder", 0, "all"),
    Comparison("equal parameters and time", "decoder", 1, "all"),
)
OTHER = (
    Comparison("those steps, all scope's strands by value", "decoder", 0, "all, by value"),
    Comparison("that time, all scope's strands by value", "decoder", 1, "all, by value"),
    Comparison("equal ranks and steps", "decoder, same ranks", 0, "all"),
)
"""By value all scope is slower: in the second of these, decoder scope has less time."""

_COLUMNS = (
    "learning rate",
    "parameters",
    "encoder's",
    "steps",
    "CPU s",
    "encoding",
    "whole jobs",
    "wall s",
    "tokens/s",
    "loss",
    "ROUGE-1",
    "ROUGE-2",
    "ROUGE-L",
)


def print_study(study: ScopeStudy, names: Sequence[str]) -> None:
    settings = study.settings
    print(f"{study.ground}; one thread\n")
    print(
        f"{settings.rounds} rounds of {settings.local_steps} steps of {settings.batch} examples, "
        f"{settings.max_source_tokens}/{settings.max_target_tokens} tokens; {settings.n_train} training examples, loss "
        f"on {settings.n_test} and ROUGE on {settings.n_written} test examples; mean ± standard deviation of "
        f"{len(settings.seeds)} seeds.\n"
    )
    for name in names:
        print(f"### {name}\n\n{_table(study, name)}\n")
    print(f"### Decoder scope minus all scope\n\n{_differences_table(study, names)}\n")
    print("\n".join(f"- {verdict(study, name)}" for name in names))


def difference(study: ScopeStudy, name: str, compared: Comparison, value: Callable[[Point], float]) -> Difference:
    """Decoder scope minus all scope, by pairs of runs with the same seed. Needs two seeds or more."""
    reference = {run.seed: value(run.points[0]) for run in study.of(name, "test", compared.reference)}
    runs = study.of(name, "test", compared.condition)
    deltas = [value(run.points[compared.at]) - reference[run.seed] for run in runs]
    return paired(deltas)


def verdict(study: ScopeStudy, name: str) -> str:
    """The cost of decoder scope on a set, in a sentence."""
    costs = "; at ".join(f"{compared.title} {_cost(study, name, compared)}" for compared in MAIN)
    return f"**{name}**, decoder scope against all scope: at {costs}."


def _cost(study: ScopeStudy, name: str, compared: Comparison) -> str:
    loss, rouge = difference(study, name, compared, _loss), difference(study, name, compared, _rouge_l_points)
    word = ("worse" if loss.spread.mean > 0 else "better") if loss.is_clear else "no clear difference"
    return (
        f"{word} (loss {loss.spread.text(3, signed=True)}, ROUGE-L {rouge.spread.text(1, signed=True)}, "
        f"{_kept(study, name, compared):.0%} of the gain over the base)"
    )


def _kept(study: ScopeStudy, name: str, compared: Comparison) -> float:
    """Decoder scope's gain over the base, in mean loss, as a part of all scope's."""
    return _gain(study, name, compared.condition, compared.at) / _gain(study, name, compared.reference, 0)


def _gain(study: ScopeStudy, name: str, condition: Condition, at: int) -> float:
    (base,) = study.of(name, "test", "base")
    return base.points[0].loss - fmean(run.points[at].loss for run in study.of(name, "test", condition))


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(study: ScopeStudy, name: str) -> str:
    rows = [[title, *_cells(study.of(name, "test", condition), at)] for title, condition, at in ROWS]
    return table(["", *_COLUMNS], rows)


def _cells(runs: Sequence[Run], at: int) -> list[str]:
    points = [run.points[at] for run in runs]
    n_effort = _COLUMNS.index("loss")
    scores = [
        spread_text([point.loss for point in points], 3),
        *(spread_text([100 * getattr(point, kind) for point in points], 1) for kind in ("rouge1", "rouge2", "rougeL")),
    ]
    if runs[0].condition == "base":
        return ["–"] * n_effort + scores
    effort = [
        f"{runs[0].learning_rate:g}",
        f"{fmean(point.n_trained for point in points):,.0f}",
        f"{fmean(point.encoder_share for point in points):.0%}",
        f"{fmean(point.n_steps for point in points):.0f}",
        spread_text([point.training_s for point in points], 1),
        *(f"{fmean(values):.1f}" for values in zip(*((p.encode_s, p.job_s, p.wall_s) for p in points), strict=True)),
        f"{fmean(point.tokens_per_s for point in points):,.0f}",
    ]
    return effort + scores


def _differences_table(study: ScopeStudy, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        for compared in (*MAIN, *OTHER):
            loss = _signed(difference(study, name, compared, _loss), 3)
            rouge = _signed(difference(study, name, compared, _rouge_l_points), 1)
            rows.append([name, compared.title, *loss, *rouge, f"{_kept(study, name, compared):.0%}"])
    return table(["set", "at", "loss", "95 %", "ROUGE-L", "95 %", "of the gain"], rows, n_left=2)


def _signed(delta: Difference, digits: int) -> list[str]:
    """Two cells: mean ± standard deviation, and the interval."""
    low, high = delta.spread.mean - delta.margin, delta.spread.mean + delta.margin
    return [delta.spread.text(digits, signed=True), f"{low:+.{digits}f} to {high:+.{digits}f}"]


def _loss(point: Point) -> float:
    return point.loss


def _rouge_l_points(point: Point) -> float:
    return 100 * point.rougeL
