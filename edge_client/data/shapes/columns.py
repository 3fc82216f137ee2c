"""Shapes that are columns of text: what is read, joined line by line, and what is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_client.data.shapes.shape import Fields, NotTextError, TextPair, Unusable, Use
from edge_client.data.shapes.values import distinct, text_of, texts_of

PLURALS = {
    "target": ("targets", "references"),
    "summary": ("summaries", "references"),
    "output": ("outputs",),
    "answer": ("answers",),
    "response": ("responses",),
    "completion": ("completions",),
}
"""Columns that hold every right answer as a list, beside or instead of the one in the column by itself."""


@dataclass(frozen=True, slots=True)
class ColumnsShape:
    """Columns by their names.

    Attributes:
        name: for people.
        source: columns that are read, in this order, each on lines of its own.
        target: the column that is written.
        optional: columns of `source` that need not be there, and may be empty.
        may_be_empty: columns of `source` that must be there, but may be empty.
    """

    name: str
    source: tuple[str, ...]
    target: str
    optional: tuple[str, ...] = ()
    may_be_empty: tuple[str, ...] = ()
    keeps_together: bool = False

    def matches(self, fields: Fields) -> bool:
        """Whether all that is needed is there."""
        has_source = all(column in fields for column in self.source if column not in self.optional)
        return has_source and bool(self._targets(fields))

    def use(self, fields: Fields) -> Use:
        """The columns of the source that are there, the target and the list of all targets."""
        source = tuple(fields.column(column) for column in self.source if column in fields)
        return Use(source, tuple(fields.column(column) for column in self._targets(fields)))

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """One example."""
        try:
            parts = {column: text_of(fields.get(column)) for column in self.source}
            targets = [text for column in self._targets(fields) for text in texts_of(fields.get(column))]
        except NotTextError as error:
            yield Unusable(f"source or target is {error}")
            return
        missing = [
            column for column, part in parts.items() if not part and column not in self.optional + self.may_be_empty
        ]
        if missing or not targets:
            yield Unusable(f"{' and '.join([*missing, *([] if targets else [self.target])])} is empty")
        else:
            yield TextPair("\n".join(part for part in parts.values() if part), distinct(targets))

    def _targets(self, fields: Fields) -> list[str]:
        return [column for column in (self.target, *PLURALS.get(self.target, ())) if column in fields]


def pair(source: str, target: str) -> ColumnsShape:
    """A shape of two columns."""
    return ColumnsShape(f"{source} and {target}", (source,), target)
