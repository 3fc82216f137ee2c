"""The door to a board's own text: everything that `--data` may name becomes examples.

A part that cannot be read is counted and the first one named; it never stops the others. But a file that is cut off, or
whose encoding cannot be told, is refused as a whole. A client that waits for work checks its data too: neither torch
nor numpy is loaded.
"""

from __future__ import annotations

from pathlib import Path

from edge_client.data.builtin_text import read_builtin
from edge_client.data.collection import Collection
from edge_client.data.dataset import Data, FileFacts
from edge_client.data.files import find_files
from edge_client.data.reading import Reading
from edge_client.data.shapes.chosen import ChosenShape, chosen_shape
from edge_client.data.shapes.shape import Fields
from edge_client.data.stamp import stamp_of
from edge_client.errors import ConfigError, DataError
from edge_client.jobs.data_spec import BUILTIN, DataSpec

MIN_UNITS = 2
"""Examples or conversations that training needs: one to train on, one to measure on."""

SHOWN_COLUMNS = 20
"""Columns that an error names."""


MAX_READS = 3
"""Times that data is read which changes meanwhile: a file that is copied over another is whole by then, or written for
long."""


def load_data(data: DataSpec) -> Data:
    """Read what `--data` names: a file, a folder of files, or "builtin:docstrings[/LIBRARY]".

    What changes while it is read is read again: a part of one text and a part of another are no data. Raises DataError
    where nothing is there, nothing in it can be used, or it goes on changing; ConfigError for flags that cannot be
    right. The hint says what is expected.
    """
    before = stamp_of(data)
    for _ in range(MAX_READS):
        try:
            read = _load(data)
        except DataError:
            if stamp_of(data) == before:
                raise
        else:
            if stamp_of(data) == before:
                return read
        before = stamp_of(data)
    raise DataError(
        f"{data} changes while it is read", "replace data in one step: write the new file beside it, then rename it"
    )


def _load(data: DataSpec) -> Data:
    chosen = chosen_shape(data)
    collection = Collection(chosen)
    if data.path.startswith(BUILTIN):
        if chosen:
            raise ConfigError(f"{data.path} has no columns to choose from", "leave --source and --target out")
        read_builtin(data.path, collection)
        return collection.data([FileFacts(data.path, "docstrings", n_examples=len(collection.examples))])
    path = Path(data.path).expanduser()
    found = find_files(path)
    reading = Reading(data, collection, chosen)
    reading.read(found, path)
    if chosen:
        _require_columns(data, collection, chosen)
    if not collection.examples:
        raise _nothing_usable(data, collection, any(file.format == "csv" for file in reading.facts))
    return collection.data(reading.facts, [str(path) for path in found.left_out])


def require_enough(data: Data, spec: DataSpec) -> None:
    """Raise DataError where there is too little to train on one part and measure on another."""
    if data.n_units < MIN_UNITS:
        kind = "example" if len(data.train) + len(data.held_out) == 1 else "conversation"
        raise DataError(
            f"{spec} has one usable {kind}; at least {MIN_UNITS} are needed, one to train on and one to measure on",
            "add more; `edge-client data` shows what is read and what is skipped",
        )


def _require_columns(data: DataSpec, collection: Collection, chosen: ChosenShape) -> None:
    """Raise DataError for a chosen column that no record has."""
    there = Fields(dict.fromkeys(collection.columns))
    missing = [column for column in chosen.columns if column not in there]
    if missing and collection.columns:
        raise DataError(
            f"{data} has no column {missing[0]!r}; its columns are {_shown(collection)}", "name one of these"
        )


def _nothing_usable(data: DataSpec, collection: Collection, has_tables: bool) -> DataError:
    if collection.n_shapeless and collection.n_shapeless == collection.n_skipped:
        hint = collection.shapeless.advice()
        return DataError(
            f"no usable example in {data}: its columns are {_shown(collection)}, and no pair of them is known by name",
            hint + ("; a table's first line must name its columns" if has_tables else ""),
        )
    first = f"; first: {collection.first_skipped}" if collection.first_skipped else ""
    return DataError(
        f"no usable example in {data} ({collection.n_skipped} unusable{first})",
        'each line or row needs two texts, such as {"source": "…", "target": "…"}',
    )


def _shown(collection: Collection) -> str:
    columns = list(collection.columns)
    more = f" and {len(columns) - SHOWN_COLUMNS} more" if len(columns) > SHOWN_COLUMNS else ""
    return ", ".join(columns[:SHOWN_COLUMNS]) + more
