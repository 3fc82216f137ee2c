"""JSON lines: one value a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_client.data.formats.record import Item, Record, Skipped
from edge_client.data.text_lines import MAX_LINE_CHARS


def read_jsonl(lines: Iterable[tuple[int, str | None]], path: Path) -> Iterator[Item]:
    """A record for each line that holds JSON; empty lines are passed over."""
    for number, line in lines:
        place = f"{path}:{number}"
        if line is None:
            yield Skipped(place, f"longer than {MAX_LINE_CHARS} characters")
        elif line.strip():
            try:
                yield Record(place, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield Skipped(place, f"no JSON ({error})")
