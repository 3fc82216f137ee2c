"""Manual pages become prose."""

from __future__ import annotations

import gzip
from pathlib import Path

from builtin_base.training.text.manuals import read_manuals, strip_roff


def test_roff_is_reduced_to_prose() -> None:
    """Manual pages lose their macros and keep their words."""
    page = (
        '.TH LS 1\n.SH "NAME"\nls \\- list \\fIdirectory\\fP contents\n.SH DESCRIPTION\n.PP\nList \\(lqall\\(rq.\n.nf\n'
    )

    assert strip_roff(page) == 'NAME\n\nls - list directory contents\n\nDESCRIPTION\n\nList "all".'


def test_a_page_s_line_describes_its_description(tmp_path: Path) -> None:
    """NAME's line is what to write of DESCRIPTION."""
    words = "Writes the height of the water at each hour of the coming day to standard output."
    path = tmp_path / "tides.1.gz"
    path.write_bytes(
        gzip.compress(f".SH NAME\ntides \\- show the tides of a harbour\n.SH DESCRIPTION\n{words}\n".encode())
    )

    (pair,) = read_manuals([path]).pairs

    assert (pair.origin, pair.target) == ("manual", "Show the tides of a harbour")
    assert words in pair.source
