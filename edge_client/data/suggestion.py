"""Flags for data whose columns are not known by name: the two with the longest texts are the likeliest."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from edge_client.data.shapes.shape import inner_record

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
            for column, value in _flat(record):
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


def _flat(record: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The columns with their values, those of an object in a column by names such as "answers.text"."""
    for column, value in record.items():
        inner = inner_record(value)
        if inner is None:
            yield column, value
        else:
            yield from ((f"{column}.{name}", part) for name, part in inner.items())


def _is_words(text: str) -> bool:
    """Whether a value is something to read: not an id, a date, a path or an address."""
    return text.strip().isalpha() or (len(text.split()) > 1 and any(map(str.isalpha, text)))
