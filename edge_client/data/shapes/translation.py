"""Translations: an object of languages in one column, or a column for each of two languages."""

from __future__ import annotations

from collections.abc import Iterable

from edge_client.data.shapes.shape import Fields, NotTextError, TextPair, Unusable, Use
from edge_client.data.shapes.values import distinct, text_of, texts_of

_CODES = (
    "ar bg bn ca cs cy da de el en es et eu fa fi fr ga gl gu he hi hr hu hy is it ja ka kk km kn ko lt lv mk ml mn mr "
    "ms mt my nb ne nl nn pa pl ps pt ro ru si sk sl sq sr sv sw ta te th tl tr uk ur uz vi xh yo zh zu"
)
_NAMES = "english german french spanish italian portuguese dutch russian chinese japanese korean arabic hindi"

LANGUAGES = frozenset(f"{_CODES} {_NAMES}".split())
"""Names of columns that are languages: codes of ISO 639-1 but those that are words of tables ("id", "no"), and the
names that people write out."""

COLUMN = "translation"


class TranslationShape:
    """{"translation": {"en": …, "de": …}}: the first language is read, the second written."""

    name, keeps_together = "translation", False

    def matches(self, fields: Fields) -> bool:
        """Whether there are two languages at least."""
        value = fields.get(COLUMN)
        return isinstance(value, dict) and len(value) > 1

    def use(self, fields: Fields) -> Use:
        """The two languages, as `--source translation.en` names them."""
        column, (source, target) = fields.column(COLUMN), self._languages(fields)
        return Use((f"{column}.{source}",), (f"{column}.{target}",))

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """One example."""
        source, target = self._languages(fields)
        return _pair(fields, f"{COLUMN}.{source}", f"{COLUMN}.{target}")

    @staticmethod
    def _languages(fields: Fields) -> tuple[str, str]:
        value = fields.get(COLUMN)
        assert isinstance(value, dict)
        source, target, *_ = value
        return str(source), str(target)


class LanguagesShape:
    """Two columns that are named by languages: the first is read, the second written."""

    name, keeps_together = "translation", False

    def matches(self, fields: Fields) -> bool:
        """Whether exactly two columns are languages."""
        return len(_languages(fields)) == 2

    def use(self, fields: Fields) -> Use:
        """The two."""
        source, target = _languages(fields)
        return Use((source,), (target,))

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """One example."""
        return _pair(fields, *_languages(fields))


def _languages(fields: Fields) -> list[str]:
    return [column for column in fields.values if isinstance(column, str) and column.strip().lower() in LANGUAGES]


def _pair(fields: Fields, source: str, target: str) -> Iterable[TextPair | Unusable]:
    try:
        text, targets = text_of(fields.get(source)), texts_of(fields.get(target))
    except NotTextError as error:
        yield Unusable(f"source or target is {error}")
        return
    if text and targets:
        yield TextPair(text, distinct(targets))
    else:
        yield Unusable(f"{target if text else source} is empty")
