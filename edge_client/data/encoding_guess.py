"""A guess at an encoding from lines that are not UTF-8: chardet's list of candidates, and which of them makes words.

The detector looks at bytes and their neighbours. Short text in Western letters it sometimes takes for Cyrillic or for
an old Macintosh's; then words mix alphabets or have capitals inside. So its best candidate that makes plausible words
is taken, and only if it is sure, or says the same of both halves of the lines.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

CANDIDATES = (
    *("cp1252", "iso-8859-15", "cp1250", "iso-8859-2", "cp1251", "koi8-r", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("cp1257", "cp1258", "cp850", "cp866", "cp874", "cp932", "euc-jp", "gb18030", "big5", "cp949"),
)
"""Encodings in which text still comes: Windows, its DOS, ISO's and Unix's of before, and East Asia's."""

SURE_ENOUGH = 0.1
"""The detector's least confidence where its verdicts on two halves differ (measured: docs/decisions/0049)."""

LEAST_LINES = 3
"""Fewer lines say too little whatever the detector says: Turkish then looks Icelandic."""

MAX_ODD_SHARE = 0.1
"""Part of the words with letters beyond ASCII that may look odd."""

_WORD = re.compile(r"[^\W\d_]+")
_SYMBOL_IN_WORD = re.compile(r"[^\W\d_][^\w\s\x00-\x7f’‘“”–—…«»\u3000-\u303f\uff00-\uffef][^\W\d_]")
_SYMBOL = re.compile(r"[^\w\s\x00-\x7f]")
_EAST_ASIAN = frozenset(("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "FULLWIDTH", "HANGUL", "IDEOGRAPHIC"))


def guess_encoding(lines: Sequence[bytes]) -> tuple[str, bool]:
    """The likeliest encoding by Python's name, and whether that is sure.

    Args:
        lines: with bytes beyond ASCII, one at least.
    """
    whole = b"".join(lines)
    name, confidence = _best(whole)
    if len(lines) < LEAST_LINES or confidence >= SURE_ENOUGH:
        return name, len(lines) >= LEAST_LINES
    halves = [b"".join(lines[::2]), b"".join(lines[1::2])]
    is_sure = all(half and _same(whole, _best(half)[0], name) for half in halves) and is_plausible(_text(whole, name))
    return name, is_sure


def is_plausible(text: str) -> bool:
    """Whether words look like words: one alphabet in each, no capital within, no symbol, no character without use."""
    words = [word for word in _WORD.findall(text) if not word.isascii()]
    n_odd = sum(_is_odd(word) for word in words) + len(_SYMBOL_IN_WORD.findall(text))
    n_odd += sum(unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs") and c not in "\t\r\n" for c in text)
    return n_odd <= MAX_ODD_SHARE * max(len(words) + len(_SYMBOL.findall(text)), 1)


def _best(sample: bytes) -> tuple[str, float]:
    import chardet  # only for files that are not UTF-8

    candidates = chardet.detect_all(sample, ignore_threshold=True, include_encodings=CANDIDATES)
    for candidate in candidates:
        name = codecs.lookup(candidate["encoding"] or "cp1252").name
        if is_plausible(_text(sample, name)):
            return _as_windows(sample, name), candidate["confidence"]
    return "cp1252", 0.0


def _as_windows(sample: bytes, name: str) -> str:
    """Western Windows' encoding where the text reads the same in it: later lines may have its quotes and dashes."""
    return "cp1252" if _same(sample, name, "cp1252") else name


def _same(sample: bytes, one: str, other: str) -> bool:
    return _text(sample, one) == _text(sample, other)


def _text(sample: bytes, name: str) -> str:
    """The text in an encoding; what it does not have becomes a lone surrogate, which no word has."""
    return sample.decode(name, "surrogateescape")


def _is_odd(word: str) -> bool:
    alphabets = {_alphabet(letter) for letter in word}
    has_capital_within = any(first.islower() and second.isupper() for first, second in pairwise(word))
    return has_capital_within or (len(alphabets) > 1 and not alphabets <= _EAST_ASIAN)


@cache
def _alphabet(letter: str) -> str:
    """The first word of the letter's name: LATIN, CYRILLIC, CJK, …"""
    return unicodedata.name(letter, "unknown").partition(" ")[0].partition("-")[0]
