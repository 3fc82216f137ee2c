"""Flags for data whose columns are not known by name: the two with the longest texts are the likeliest."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

LOOKED_AT_RECORDS = 200
"""Records whose texts are measured."""


class ColumnLengths:
    """How much text the columns of records hold that no shape matched."""

    def __init__(self) -> None:
        self._n_chars: dict[str, int] = {}
        self._n_records = 0

    def add(self, record: Mapping[str, object]) -> None:
        """Measure one record."""
        if self._n_records < LOOKED_AT_RECORDS:
            self._n_records += 1
            for column, value in record.items():
                n_chars = len(value.strip()) if isinstance(value, str) else 0
                self._n_chars[column] = self._n_chars.get(column, 0) + n_chars

    def flags(self) -> str:
        """Flags that would read the longest texts and write the next ones; "" where there are no two columns of text.

        Of equals the first column comes first.
        """
        with_text = [column for column, n_chars in self._n_chars.items() if n_chars]
        source, target = (*sorted(with_text, key=lambda column: -self._n_chars[column])[:2], "", "")[:2]
        return f"--source {shlex.quote(source)} --target {shlex.quote(target)}" if target else ""
