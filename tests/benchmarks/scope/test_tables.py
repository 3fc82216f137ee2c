"""Decoder scope against all scope: pairs of the same seed are compared, and the verdict says which is better."""

from __future__ import annotations

import pytest

from benchmarks.scope.__main__ import SETTINGS
from benchmarks.scope.runs import Condition, Point, Run, ScopeStudy
from benchmarks.scope.tables import MAIN, difference, verdict


def run(condition: Condition, seed: int, *losses: float) -> Run:
    points = tuple(Point(loss=loss) for loss in losses)
    return Run(set="notes", part="test", condition=condition, learning_rate=0.01, seed=seed, points=points)


def study(shift: float) -> ScopeStudy:
    """Decoder scope is `shift` nats above all scope at equal steps, half of it at equal time; seeds differ by more."""
    runs = [run("base", 0, 5.0)]
    for seed, level in enumerate((3.0, 3.5, 4.0)):
        jitter = 0.001 * seed
        runs += [run("all", seed, level), run("decoder", seed, level + shift + jitter, level + shift / 2 + jitter)]
    return ScopeStudy(machine="a machine", settings=SETTINGS, runs=tuple(runs))


def test_pairs_share_their_seed() -> None:
    """The spread between seeds is a thousand times that of the differences."""
    delta = difference(study(0.1), "notes", MAIN[0], lambda point: point.loss)

    assert delta.spread.mean == pytest.approx(0.101)
    assert delta.is_clear


@pytest.mark.parametrize(("shift", "word"), [(0.1, "worse"), (-0.1, "better"), (0.0, "no clear difference")])
def test_the_verdict_names_the_direction(shift: float, word: str) -> None:
    sentence = verdict(study(shift), "notes")
    assert sentence.startswith("**notes**")
    assert f"equal parameters and steps {word}" in sentence
