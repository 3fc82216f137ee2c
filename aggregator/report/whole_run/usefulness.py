"""How useful the model of a run is to each board: scores of base, alone, global and personal, and what is gained. Pure.

A score is compared over boards on one version: the newest that half of those boards have scored that ever scored any,
so that a run can be looked at while some have answered and others have not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aggregator.report.whole_run.record import Record
from aggregator.report.whole_run.spread import spread
from braid_common.metrics import SCORES, SUBJECTS, Subject, metric

FIRST_VERSION = 1
"""The version that profiles make: it has bases to train on and no adapter yet, so that it is scored as the base is."""

GAINS: tuple[tuple[Subject, Subject], ...] = (
    ("global", "base"),
    ("global", "alone"),
    ("personal", "base"),
    ("personal", "alone"),
    ("personal", "global"),
)
"""What is compared with what: the first has gained where it is better than the second."""

Scored = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Device → version → the numbers that it reported."""


def usefulness(record: Record) -> dict[str, Any]:
    """All scores, by name: the version, each subject's spread and boards, gains, and the course over versions."""
    evaluations = record.evaluations()
    return {score: _of_score(score, evaluations) for score in SCORES}


def is_lower_better(score: str) -> bool:
    """Whether less of a score is more."""
    return score == "loss"


def _of_score(score: str, evaluations: Scored) -> dict[str, Any]:
    boards = {subject: _values(subject, score, evaluations) for subject in SUBJECTS}
    return {
        "version": compared_version(score, evaluations),
        "subjects": {
            subject: spread(list(values.values()), is_lower_better=is_lower_better(score)) | {"by_board": values}
            for subject, values in boards.items()
        },
        "gains": [_gain(score, better, than, boards) for better, than in GAINS],
        "course": _course(score, evaluations),
    }


def compared_version(score: str, evaluations: Scored) -> int | None:
    """The newest version that half of the boards have scored that ever have; None where nobody has."""
    scorers: dict[int, int] = {}
    n_boards = 0
    for versions in evaluations.values():
        scored = [version for version, values in versions.items() if score in values]
        n_boards += bool(scored)
        for version in scored:
            scorers[version] = scorers.get(version, 0) + 1
    return max(
        (version for version, count in scorers.items() if 2 * count >= n_boards), default=max(scorers, default=None)
    )


def _values(subject: Subject, score: str, evaluations: Scored) -> dict[str, float]:
    """A subject's score by device. That of the global model is of the version that is compared; other subjects' is each
    board's newest, and a base that was not scored by itself is known from the first version."""
    compared, name = compared_version(score, evaluations), metric(subject, score)
    found: dict[str, float] = {}
    for device, versions in evaluations.items():
        told = {version: values[name] for version, values in versions.items() if name in values}
        if subject == "base" and not told:
            first = versions.get(FIRST_VERSION, {})
            told = {FIRST_VERSION: first[score]} if score in first else {}
        if subject == "global":
            told = {version: value for version, value in told.items() if version == compared}
        if told:
            found[device] = told[max(told)]
    return found


def _gain(score: str, better: Subject, than: Subject, boards: Mapping[Subject, Mapping[str, float]]) -> dict[str, Any]:
    """How much better one subject is than another, over the boards that have both; above 0 is a gain for each score."""
    sign = -1.0 if is_lower_better(score) else 1.0
    gains = {
        device: sign * (value - boards[than][device])
        for device, value in boards[better].items()
        if device in boards[than]
    }
    found = spread(list(gains.values()), is_lower_better=False)
    return {
        "subject": better,
        "over": than,
        **{name: found[name] for name in ("mean", "worst_tenth", "worst", "best", "deviation", "boards")},
        "losers": sum(gain < 0 for gain in gains.values()),
        "by_board": gains,
    }


def _course(score: str, evaluations: Scored) -> list[dict[str, Any]]:
    """The spread over the boards, version by version."""
    versions = sorted({number for found in evaluations.values() for number, values in found.items() if score in values})
    course = []
    for version in versions:
        by_board = {
            device: found[version][score] for device, found in evaluations.items() if score in found.get(version, {})
        }
        figures = spread(list(by_board.values()), is_lower_better=is_lower_better(score))
        course.append({"version": version, **figures, "by_board": by_board})
    return course
