"""The columns that a user chose with `--source` and `--target`, as a shape like those that are known by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_client.data.shapes.shape import Fields, NotTextError, TextPair, Unusable, Use
from edge_client.data.shapes.template import Template, parse_template
from edge_client.data.shapes.values import distinct
from edge_client.errors import ConfigError
from edge_client.jobs.data_spec import DataSpec


@dataclass(frozen=True, slots=True)
class ChosenShape:
    """Any record with the chosen columns; of several targets the first that a record has comes first."""

    source: Template
    targets: tuple[Template, ...]
    name: str = "as chosen"
    keeps_together: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that was named."""
        return distinct([*self.source.columns, *(column for target in self.targets for column in target.columns)])

    def matches(self, fields: Fields) -> bool:
        """Whether the record has a column of the source and one of a target."""
        has_source = any(column in fields for column in self.source.columns)
        return has_source and any(column in fields for target in self.targets for column in target.columns)

    def use(self, fields: Fields) -> Use:
        """The chosen columns that are there."""
        targets = [column for target in self.targets for column in target.columns]
        return Use(_spelt(fields, self.source.columns), _spelt(fields, targets))

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """One example."""
        try:
            sources = self.source.texts(fields)
            targets = [text for target in self.targets for text in target.texts(fields)]
        except NotTextError as error:
            yield Unusable(f"source or target is {error}; name what is in it, as in answers.text")
            return
        if sources and targets:
            yield TextPair("\n".join(sources), distinct(targets))
        else:
            yield Unusable(f"{'target' if sources else 'source'} is empty")


def chosen_shape(data: DataSpec) -> ChosenShape | None:
    """The shape that a user chose; None where nothing was. Raises ConfigError for half a choice, or a bad template."""
    if not data.source and not data.targets:
        return None
    if not data.source or not data.targets:
        named, missing = ("--source", "--target") if data.source else ("--target", "--source")
        raise ConfigError(f"{named} is given without {missing}", f"name both columns: {named} … {missing} …")
    return ChosenShape(
        parse_template(data.source, "--source"), tuple(parse_template(target, "--target") for target in data.targets)
    )


def _spelt(fields: Fields, columns: Iterable[str]) -> tuple[str, ...]:
    """The columns that are there, as the record spells them; of one inside another both parts."""
    spelt = []
    for column in columns:
        if own := fields.column(column):
            inner = column.partition(".")[2]
            spelt.append(f"{own}.{inner}" if inner and own.lower() != column.strip().lower() else own)
    return distinct(spelt)
