"""Sizes and times with their units, read and written, and texts of others made safe for a terminal."""

from __future__ import annotations

import re

MIB = 1 << 20
"""Bytes of a mebibyte."""

LARGEST_SIZE_BYTES = 1 << 60
"""A size from here on is a typing error, or a system's way to write that there is no limit."""

LONGEST_S = 365 * 86400.0
"""A time above a year is a typing error."""

SIZE_FORMS = "500MiB, 1.5GiB or 800M"
DURATION_FORMS = "90s, 10min or 1.5h"
"""How people may write sizes and durations, for hints."""

_UNITS_BYTES = {"": 1, "b": 1}
_UNITS_BYTES |= {f"{letter}ib": 1 << (10 * power) for power, letter in enumerate("kmgt", 1)}
_UNITS_BYTES |= {f"{letter}{b}": 10 ** (3 * power) for power, letter in enumerate("kmgt", 1) for b in ("", "b")}
_UNITS_S = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_size(text: str, what: str = "memory") -> int:
    """Bytes of "500MiB" (2^20), "800M" or "800MB" (10^6), "1.5GiB", "1073741824".

    Raises ValueError for anything else, in a sentence that says that it is no `what` size.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in _UNITS_BYTES:
        raise ValueError(f"{text!r} is not a {what} size")
    size_bytes = float(match[1]) * _UNITS_BYTES[match[2].lower()]
    if not 1 <= size_bytes < LARGEST_SIZE_BYTES:
        raise ValueError(f"{text!r} is out of range for a {what} size")
    return int(size_bytes)


def show_size(size_bytes: float) -> str:
    """ "1.50 GiB", "800 MiB", "12 B": binary units, about three figures."""
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    digits = 0 if unit == "B" or value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def show_share(share: float) -> str:
    """ "12.3 %", "0.4 %", "90 %" of a share from 0 to 1; "<0.1 %" of one that would round to nothing."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{round(100 * share, 1):g} %"


def parse_duration(text: str) -> float:
    """Seconds of "90s", "10min", "1.5h" or "7d". Raises ValueError for anything else, and for zero."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in _UNITS_S:
        raise ValueError(f"{text!r} is not a duration")
    seconds = float(match[1]) * _UNITS_S[match[2].lower()]
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(f"{text!r} is out of range for a duration")
    return seconds


def show_seconds(seconds: float) -> str:
    """ "3 d 4 h", "2 h 5 min", "3 min 20 s"; below a minute three figures at most: "42 s", "1.23 s", "96.4 ms"."""
    whole = round(seconds)
    if whole >= 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs" if seconds else "0 s"


def printable(text: str) -> str:
    """The text without control characters, so that others' words can neither move the cursor nor forge a line."""
    return "".join(c if c.isprintable() else "?" for c in text)
