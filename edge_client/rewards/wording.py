"""Numbers that compare the words of an answer with those of what it answers. Pure, and the same for every base."""

from __future__ import annotations

import math
import re
from itertools import pairwise

N_NUMBERS = 9
"""How many `wording` gives."""

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r'"([^"\n]*)"')


def wording(source: str, answer: str) -> tuple[float, ...]:
    """Compare them, in lower case and without punctuation.

    Returns:
        Shares of the answer's words that are in the source, in its last line, and of its pairs of neighbours that are
        in the source; the share of the last line's words that are in the answer; the answer's words that are not in the
        source, and all of them, as logarithms of one more; the share of its words that are different; the share of what
        it has in double quotes, such as a call's arguments, that the source has as well; whether there is any.
    """
    words, known = _words(answer), _words(source)
    last = _words(source.strip().rsplit("\n", 1)[-1])
    there, pairs = set(known), set(pairwise(known))
    quoted = [text.lower() for text in _QUOTED.findall(answer)]
    return (
        _share(words, there),
        _share(words, set(last)),
        _share(list(pairwise(words)), pairs),
        _share(last, set(words)),
        math.log1p(sum(word not in there for word in words)),
        math.log1p(len(words)),
        len(set(words)) / max(1, len(words)),
        sum(text in source.lower() for text in quoted) / len(quoted) if quoted else 1.0,
        float(bool(quoted)),
    )


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _share(items: list[str] | list[tuple[str, str]], among: set[str] | set[tuple[str, str]]) -> float:
    """The share of items that are among others; 0 of none."""
    return sum(item in among for item in items) / max(1, len(items))
