"""Columns and templates as `--source` and `--target` name them: `question`, or `"{title}\\n{body}"`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_client.data.shapes.shape import Fields
from edge_client.data.shapes.values import text_of, texts_of
from edge_client.errors import ConfigError

_PART = re.compile(r"(\{\{|\}\})|\{([^{}]*)\}|([{}])|(\\[nt\\])")
_WRITTEN = {"{{": "{", "}}": "}", "\\n": "\n", "\\t": "\t", "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class Template:
    """A text with columns in it.

    Attributes:
        words: the text before, between and behind the columns; one more than there are columns.
        columns: their names as they were given.
    """

    words: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def is_column(self) -> bool:
        """Whether it is one column and nothing else."""
        return len(self.columns) == 1 and not any(self.words)

    def texts(self, fields: Fields) -> list[str]:
        """Every text that a record gives: of a single column with a list all of it, else one; none where it is empty.

        Raises NotTextError for a column whose value is no text.
        """
        if self.is_column:
            return texts_of(fields.get(self.columns[0]))
        values = [text_of(fields.get(column)) for column in self.columns]
        if not any(values):
            return []
        parts = [part for pair in zip(self.words, [*values, ""], strict=True) for part in pair]
        return [text] if (text := "".join(parts).strip()) else []


def parse_template(text: str, flag: str) -> Template:
    """A column's name or, where there are braces, a template.

    In a template `\\n` and `\\t` are written for a new line and a tab, `{{` and `}}` for braces.
    Raises ConfigError for a brace that stands alone, or a template without a column.
    """
    if "{" not in text and "}" not in text:
        return Template(("", ""), (text,))
    words, columns, end = [""], [], 0
    for part in _PART.finditer(text):
        words[-1] += text[end : part.start()]
        end = part.end()
        if part[3]:
            raise ConfigError(f"{flag} {text!r} has a brace that is never matched", 'write it as in "{title}\\n{body}"')
        if part[1] or part[4]:
            words[-1] += _WRITTEN[part[0]]
        else:
            columns.append(part[2].strip())
            words.append("")
    words[-1] += text[end:]
    if not columns or not all(columns):
        raise ConfigError(f"{flag} {text!r} names no column", 'write columns in braces, as in "{title}\\n{body}"')
    return Template(tuple(words), tuple(columns))
