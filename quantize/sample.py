"""Text to measure the loss on: pairs of source and target."""

from __future__ import annotations

import json
from pathlib import Path

from quantize.errors import BaseFormatError

SAMPLE = Path(__file__).with_name("sample_text.jsonl")
"""Twelve short texts and summaries, written for this purpose."""

MAX_PAIRS = 64
"""Pairs of a file that are used, the first; more would only take longer, as the report is no benchmark."""

MAX_LINE_BYTES = 1 << 20
"""Longest line that is read: ten times a long report."""

_HINT = 'each line needs two texts: {"source": "…", "target": "…"}'


def read_texts(file: Path) -> list[tuple[str, str]]:
    """The first MAX_PAIRS pairs of a JSONL file. Raises BaseFormatError for a line that is no pair, and without any."""
    pairs: list[tuple[str, str]] = []
    try:
        with file.open("rb") as lines:
            for number in range(1, MAX_PAIRS + 1):
                line = lines.readline(MAX_LINE_BYTES)
                if not line:
                    break
                pairs.append(_pair(line, f"{file}:{number}"))
    except OSError as error:
        raise BaseFormatError(f"cannot read {file} ({error.strerror}); give a JSONL file with --text") from error
    if not pairs:
        raise BaseFormatError(f"{file} is empty; {_HINT}")
    return pairs


def _pair(line: bytes, place: str) -> tuple[str, str]:
    try:
        found = json.loads(line)
        source, target = found["source"], found["target"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BaseFormatError(f"{place} is no example; {_HINT}") from error
    if not (isinstance(source, str) and isinstance(target, str) and source.strip() and target.strip()):
        raise BaseFormatError(f"{place} is no example; {_HINT}")
    return source, target
