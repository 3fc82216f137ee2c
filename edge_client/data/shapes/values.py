"""Text of the values in records: strings, numbers, lists of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_client.data.shapes.shape import NotTextError


def text_of(value: object) -> str:
    """One text: numbers as JSON writes them, parts of a list a line each, "" for nothing. Raises NotTextError."""
    return "\n".join(texts_of(value))


def texts_of(value: object) -> list[str]:
    """Every text in a value that is not empty: of a list its elements, of an object what it has under "text".

    Raises NotTextError for an object without text, or bytes.
    """
    if isinstance(value, (list, tuple)):
        return [text for element in value for text in texts_of(element)]
    if isinstance(value, dict):
        if "text" not in value:
            raise NotTextError(f"an object with {', '.join(map(str, value)) or 'nothing'}, not text")
        return texts_of(value["text"])  # as SQuAD has its answers
    text = _scalar(value)
    return [text] if text else []


def _scalar(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bytes, bytearray)):
        raise NotTextError("bytes, not text")
    return str(value)


def distinct(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts without those that are there already, in order."""
    return tuple(dict.fromkeys(texts))
