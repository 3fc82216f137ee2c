"""Examples as they are collected record by record, with everything that a person should know about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from braid_common.example import Example
from edge_client.data.dataset import Data, FileFacts, Findings
from edge_client.data.formats.record import Item, Skipped
from edge_client.data.shapes.chat import is_chat
from edge_client.data.shapes.chosen import ChosenShape
from edge_client.data.shapes.known import find_shape
from edge_client.data.shapes.shape import Fields, Shape, TextPair, Unusable, Use, names_of
from edge_client.data.split import Units
from edge_client.data.suggestion import ColumnLengths

MAX_EXAMPLES = 200_000
"""Examples kept. At 1 kB each this is 200 MB, more than a board can train on in a run."""

N_FIRST = 3
"""Examples that are shown to people."""

MAX_NAMED_SKIPS = 20
"""Skipped parts that are named; the others are counted."""

MAX_COLUMNS = 1000
"""Different columns that are remembered, so that objects keyed by random names take no memory."""

MAX_SHOWN_CHARS = 300
"""Characters of a record's columns that a reason shows."""

MESSAGES = "messages"
"""The column that a bare list of messages is put into."""


class Collection:
    """Examples that have been read so far, and what could not be used."""

    def __init__(self, chosen: ChosenShape | None = None) -> None:
        self.examples: list[Example] = []
        self.n_skipped = 0
        self.first_skipped = ""
        self.left_out_from = ""
        self.columns: dict[str, None] = {}
        self.shapeless = ColumnLengths()
        self.n_shapeless = 0
        self._chosen = chosen
        self._units = Units()
        self._skips: list[tuple[str, str]] = []
        self._names: dict[tuple[object, ...], dict[str, str]] = {}
        self._shapes: dict[str, None] = {}
        self._used: tuple[dict[str, None], dict[str, None]] = ({}, {})

    def read(self, items: Iterable[Item], group: str, shape: Shape | None = None, use: Use | None = None) -> None:
        """Take the examples of a file's records, up to MAX_EXAMPLES in all.

        Args:
            items: what a reader gives.
            group: what the examples belong to.
            shape: of every record; None finds it for each one.
            use: columns that the records were made of, where they are not the file's own.
        """
        for item in items:
            if len(self.examples) >= MAX_EXAMPLES:
                self.left_out_from = self.left_out_from or item.place
                return
            if isinstance(item, Skipped):
                self.skip(item.place, item.why, item.n)
            else:
                value = {MESSAGES: item.value} if is_chat(item.value) else item.value
                if isinstance(value, dict):
                    fields = self._fields(value) if use is None else Fields(value)
                    self._take(fields, item.place, group, shape, use)
                else:
                    self.skip(item.place, "not an object with named columns")

    def skip(self, place: str, why: str, n: int = 1) -> None:
        """Count what cannot be used, and name the first of it."""
        self.n_skipped += n
        self.first_skipped = self.first_skipped or f"{place}: {why}"
        if len(self._skips) < MAX_NAMED_SKIPS:
            self._skips.append((place, why))

    def add(self, example: Example) -> None:
        """Take an example that is one already."""
        self.examples.append(example)
        self._units.add([example])

    def note_use(self, use: Use, columns: Iterable[object], name: str) -> None:
        """Remember a shape, the columns that it takes, and those that were there."""
        self._shapes[name] = None
        for used, names in zip(self._used, (use.source, use.target), strict=True):
            used.update(dict.fromkeys(names))
        self._note_columns(columns)

    def data(self, files: Iterable[FileFacts], left_out_files: Iterable[str] = ()) -> Data:
        """All of it, divided."""
        train, held_out = self._units.split(self.examples)
        source, target = (tuple(used) for used in self._used)
        roots = {column.partition(".")[0] for column in (*source, *target)} | {*source, *target}
        findings = Findings(
            files=tuple(files),
            shapes=tuple(self._shapes),
            source_columns=source,
            target_columns=target,
            ignored_columns=tuple(column for column in self.columns if column not in roots),
            skips=tuple(self._skips),
            left_out_files=tuple(left_out_files),
            left_out_from=self.left_out_from,
        )
        first = tuple(self.examples[:N_FIRST])
        return Data(train, held_out, self.n_skipped, self.first_skipped, findings, first, len(self._units))

    def _fields(self, value: Mapping[str, object]) -> Fields:
        """The record; how its columns are spelt is worked out once for all that have the same."""
        key = tuple(value)
        names = self._names.get(key)
        if names is None:
            names = names_of(value)
            if len(self._names) < MAX_COLUMNS:
                self._names[key] = names
                self._note_columns(value)
        return Fields(value, names)

    def _note_columns(self, columns: Iterable[object]) -> None:
        for column in columns:
            if isinstance(column, str) and len(self.columns) < MAX_COLUMNS:
                self.columns[column] = None

    def _take(self, fields: Fields, place: str, group: str, shape: Shape | None, use: Use | None) -> None:
        shape = shape or self._shape(fields)
        if shape is None:
            self.n_shapeless += 1
            self.shapeless.add(fields.values)
            columns = ", ".join(map(str, fields.values))[:MAX_SHOWN_CHARS] or "none"
            why = "without the chosen columns" if self._chosen else "of no shape that is known by name"
            self.skip(place, f"{why}; its columns are {columns}")
            return
        pairs: list[TextPair] = []
        for found in shape.pairs(fields):
            if isinstance(found, TextPair) and _is_unicode(found):
                pairs.append(found)
            else:
                self.skip(place, found.why if isinstance(found, Unusable) else "not in the file's encoding")
        if not pairs:
            return
        if use is None:
            self.note_use(shape.use(fields), (), shape.name)
        self._add(pairs, place, group, together=shape.keeps_together)

    def _add(self, pairs: list[TextPair], place: str, group: str, *, together: bool) -> None:
        examples = [
            Example(place if len(pairs) == 1 else f"{place}#{number}", group, pair.source, *_targets(pair))
            for number, pair in enumerate(pairs, 1)
        ]
        examples = examples[: MAX_EXAMPLES - len(self.examples)]
        if len(examples) < len(pairs):
            self.left_out_from = self.left_out_from or f"{place}#{len(examples) + 1}"
        self.examples += examples
        for unit in [examples] if together else [[example] for example in examples]:
            self._units.add(unit)

    def _shape(self, fields: Fields) -> Shape | None:
        if self._chosen is not None:
            return self._chosen if self._chosen.matches(fields) else None
        return find_shape(fields)


def _targets(pair: TextPair) -> tuple[str, tuple[str, ...]]:
    target, *others = pair.targets
    return target, tuple(others)


def _is_unicode(pair: TextPair) -> bool:
    """False for lone surrogates: bytes that are not in the file's encoding, or a broken \\ud800 in JSON."""
    try:
        "".join((pair.source, *pair.targets)).encode()
    except UnicodeEncodeError:
        return False
    return True
