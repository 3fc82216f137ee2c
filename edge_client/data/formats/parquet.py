"""Parquet, where pyarrow is installed: it is no need of a board's."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

from edge_client.data.formats.record import Item, Record
from edge_client.errors import ConfigError, DataError

ROWS_AT_ONCE = 256
"""Rows that are in memory together; Parquet itself keeps a column's page besides."""


def read_parquet(path: Path) -> Iterator[Item]:
    """A record for each row. Raises ConfigError without pyarrow, DataError where the file is damaged."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(f"{path} is Parquet, which needs pyarrow", "pip install 'braid-fl[parquet]'") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield Record(f"{path}:{number}", row)
    except (OSError, ValueError) as error:  # pyarrow's own errors are these
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path} is damaged: {reason}", "copy or download it again") from error
