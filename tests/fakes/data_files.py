"""Data files in the forms that people have, and what is read of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edge_client.data.dataset import Data
from edge_client.data.load import load_data
from edge_client.jobs.data_spec import DataSpec


def read(path: Path, *, targets: Sequence[str] = (), **flags: str) -> Data:
    """What is read of a file or folder."""
    return load_data(DataSpec.of(str(path), targets=targets, **flags))


def examples(path: Path, **flags: Any) -> list[tuple[str, str]]:
    """(source, target) of all examples, in the order of the file."""
    data = read(path, **flags)
    return sorted_as_read([(example.id, example.source, example.target) for example in data.train + data.held_out])


def sorted_as_read(found: Iterable[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Pairs in the order of the numbers at the end of their ids."""

    def place(one: tuple[str, str, str]) -> list[int]:
        return [int(part) for part in one[0].rpartition(":")[2].split("#") if part.isdigit()]

    return [(source, target) for _, source, target in sorted(found, key=place)]


def write_jsonl(path: Path, records: Iterable[object]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path
