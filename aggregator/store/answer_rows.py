"""Answers to updates and profiles as rows of the database, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aggregator.store.records import Answer, ConflictError

_NO_ROUND = {"round": 0, "counted_in": 0, "staleness": 0}  # of a profile


def columns_of(answer: Answer) -> dict[str, Any]:
    """The columns of an update's row."""
    return {name: getattr(answer, name) for name in Answer.__slots__}


def columns_of_profile(answer: Answer) -> dict[str, Any]:
    """The columns of a profile's row."""
    return {name: value for name, value in columns_of(answer).items() if name not in _NO_ROUND}


def answer_of(row: Mapping[Any, Any]) -> Answer:
    """The answer in an update's row."""
    return Answer(**{name: row[name] for name in Answer.__slots__})


def profile_of_row(row: Mapping[Any, Any]) -> Answer:
    """The answer in a profile's row, which has no round."""
    return answer_of({**row, **_NO_ROUND})


def same_answer(stored: Answer, answer: Answer) -> Answer:
    """The stored answer to what was sent twice. Raises ConflictError where the second has other bytes."""
    if stored.digest != answer.digest:
        raise ConflictError(stored)
    return stored
