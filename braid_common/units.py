"""Sizes and times with their units, and texts of others made safe for a terminal."""

from __future__ import annotations


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


def show_seconds(seconds: float) -> str:
    """ "42 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def printable(text: str) -> str:
    """The text without control characters, so that a board's words can neither move the cursor nor forge a line."""
    return "".join(c if c.isprintable() else "?" for c in text)
