"""Rated examples: answers that people judged, read from JSON lines and divided for a fair test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from braid_common.seeds import derive_seed
from edge_client.data.text_lines import MAX_LINE_CHARS
from edge_client.errors import DataError

MAX_RATED = 200_000
"""Most lines of one file that are read: their features lie in memory, 8 GB at 10,000 numbers each."""

LEAST_OF_A_CLASS = 10
"""Fewest answers that people liked, and that they did not, of those that a head is fitted to and of those that it is
tested on. With fewer its accuracy is chance."""

HELD_OUT_PART = 5
"""One source in so many is held out."""

_ANSWER_KEYS = ("generation", "answer", "response", "completion")
_REWARD_KEYS = ("reward", "rating", "score", "label")
_EXAMPLE = '{"source": "…", "answer": "…", "reward": 1}'


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """An answer to a source, and whether people approved of it."""

    source: str
    text: str
    is_good: bool


@dataclass(frozen=True, slots=True)
class RatedFile:
    """Rated answers of one file, divided by source, so that no source is on both sides.

    Attributes:
        train: to fit a head to.
        held_out: to test it on.
        n_skipped: lines that were no rated answer.
        first_skipped: the first of them, and why; "" for none.
    """

    train: tuple[RatedAnswer, ...]
    held_out: tuple[RatedAnswer, ...]
    n_skipped: int = 0
    first_skipped: str = ""


def read_rated(path: Path) -> RatedFile:
    """Read a file of rated answers.

    Raises DataError where it cannot be read, or has too few answers of one kind on either side.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            answers, skipped = _read(lines)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the path and the file's rights") from error
    if not answers:
        first = f"; first: {skipped[0]}" if skipped else ""
        raise DataError(f"{path} has no rated answer{first}", f"write lines such as {_EXAMPLE}")
    train, held_out = split_by_source(answers)
    _require_both(answers, path, "", 2 * LEAST_OF_A_CLASS)
    for part, words in ((train, " to learn from"), (held_out, " to test on")):
        _require_both(part, path, words, LEAST_OF_A_CLASS)
    return RatedFile(tuple(train), tuple(held_out), len(skipped), skipped[0] if skipped else "")


def split_by_source(answers: Sequence[RatedAnswer]) -> tuple[list[RatedAnswer], list[RatedAnswer]]:
    """Those to learn from, and those to test on: about one source in HELD_OUT_PART, the same ones whatever else is in
    the file."""
    train: list[RatedAnswer] = []
    held_out: list[RatedAnswer] = []
    for answer in answers:
        part = derive_seed(0, "rated", answer.source) % HELD_OUT_PART
        (train if part else held_out).append(answer)
    return train, held_out


def _read(lines: Iterable[str]) -> tuple[list[RatedAnswer], list[str]]:
    answers: list[RatedAnswer] = []
    skipped: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            answers.append(_rated(line))
        except ValueError as error:
            skipped.append(f"line {number}: {error}")
        if len(answers) == MAX_RATED:
            skipped.append(f"line {number + 1}: only the first {MAX_RATED} are read")
            break
    return answers, skipped


def _rated(line: str) -> RatedAnswer:
    """Raises ValueError, which says what the line lacks."""
    if len(line) > MAX_LINE_CHARS:
        raise ValueError(f"longer than {MAX_LINE_CHARS} characters")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("no JSON") from error
    if not isinstance(fields, dict):
        raise ValueError("no JSON object")
    source, text = fields.get("source"), _first(fields, _ANSWER_KEYS)
    if not isinstance(source, str) or not source.strip() or not isinstance(text, str):
        raise ValueError(f"no text in source and {_ANSWER_KEYS[0]} (or {', '.join(_ANSWER_KEYS[1:])})")
    reward = _first(fields, _REWARD_KEYS)
    if not isinstance(reward, (bool, int, float)) or not 0 <= reward <= 1:
        raise ValueError(f"{_REWARD_KEYS[0]} is {reward!r}, and no number from 0 to 1")
    return RatedAnswer(source, text, reward >= 0.5)


def _first(fields: Mapping[str, object], keys: Sequence[str]) -> object:
    return next((fields[key] for key in keys if key in fields), None)


def _require_both(answers: Sequence[RatedAnswer], path: Path, words: str, least: int) -> None:
    n_good = sum(answer.is_good for answer in answers)
    n_bad = len(answers) - n_good
    if min(n_good, n_bad) < least:
        raise DataError(
            f"{path} has {n_good} good and {n_bad} bad answers{words}: {least} of each are needed to tell them apart",
            "rate more answers, of both kinds and to more sources",
        )
