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
                n_chars = len(value.strip()) if isinstance(value, str) and _is_words(value) else 0
                self._n_chars[column] = self._n_chars.get(column, 0) + n_chars

    def advice(self) -> str:
        """Flags that would read the longest texts and write the next ones, or what is missing for any.

        Of equals the first column comes first.
        """
        with_text = [column for column, n_chars in self._n_chars.items() if n_chars]
        source, target = (*sorted(with_text, key=lambda column: -self._n_chars[column])[:2], "", "")[:2]
        if target:
            flags = f"--source {shlex.quote(source)} --target {shlex.quote(target)}"
            return f"say which to read and which to write: {flags} (--target again for further right answers)"
        holds = f"{source} alone holds text" if source else "none of them holds text"
        return f"{holds}, and training needs two texts a record: one to read and one to write (--source, --target)"


def _is_words(text: str) -> bool:
    """Whether a value is something to read: not an id, a path or an address."""
    return text.strip().isalpha() or len(text.split()) > 1
