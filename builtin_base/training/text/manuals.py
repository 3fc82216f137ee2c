"""Manual pages: their roff reduced to running text, and their one-line descriptions as summaries."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from builtin_base.training.text.documents import Document, Harvest, Pair, cut_at_paragraphs, described

MIN_PAGE_BYTES = 400
"""Compressed manual pages below this size, in bytes, only name another page."""

_MAN = Path("/usr/share/man")
_ROFF_ESCAPE = re.compile(r"\\(?:f\[[^]]*\]|f\(..|f.|s[-+]?\d+|[&:|^/,)%]|\*\(..|\*\[[^]]*\]|\*.|n\(..|m\[[^]]*\])")
_ROFF_CHARACTERS = {
    r"\-": "-",
    r"\(aq": "'",
    r"\(cq": "'",
    r"\(oq": "'",
    r"\(lq": '"',
    r"\(rq": '"',
    r"\(bu": "*",
    r"\(em": "-",
    r"\(en": "-",
    r"\(co": "(c)",
    r"\(dq": '"',
    r"\(ti": "~",
    r"\(ha": "^",
    r"\e": "\\",
    r"\ ": " ",
    r"\~": " ",
    r"\(mu": "x",
    r"\(+-": "+-",
    r"\(->": "->",
    r"\(ga": "`",
    r"\'": "'",
    r"\0": " ",
}


def strip_roff(source: str) -> str:
    """Reduce a manual page's roff source to its running text; headings become lines of their own."""
    lines: list[str] = []
    for line in source.splitlines():
        if line.startswith((".SH", ".Sh", ".SS", ".Ss")):
            heading = _unescape(line[3:]).strip(' "')
            lines.append(f"\n{heading}\n")
        elif line.startswith((".B", ".I", ".R", ".Nm", ".Nd", ".Fl", ".Ar", ".Xr", ".Op", ".Cm", ".Pa")):
            lines.append(_unescape(line.partition(" ")[2]).replace('"', ""))
        elif line.startswith((".PP", ".TP", ".P", ".LP", ".IP", ".Pp", ".sp", ".It")):
            lines.append("\n" + _unescape(line[3:].partition(" ")[2]).split(" ")[0].strip('"'))
        elif not line.startswith((".", "'")):
            lines.append(_unescape(line))
    text = re.sub(r"[ \t]+", " ", "\n".join(lines))
    return re.sub(r"\n\s*\n+", "\n\n", text).strip()


def _unescape(line: str) -> str:
    line = line.partition(r"\"")[0]
    for escape, character in _ROFF_CHARACTERS.items():
        line = line.replace(escape, character)
    return _ROFF_ESCAPE.sub("", line)


def manual_batches(size: int = 400) -> list[list[Path]]:
    """Name the English manual pages, in batches for `read_manuals`."""
    pages = sorted(path for section in range(1, 9) for path in (_MAN / f"man{section}").glob("*.gz"))
    # The Google Cloud SDK, where installed, brings 16,000 generated pages that repeat one another's options. Links and
    # pages of a line are other names of a page.
    pages = [
        path
        for path in pages
        if not path.name.startswith("gcloud") and not path.is_symlink() and path.stat().st_size >= MIN_PAGE_BYTES
    ]
    return [pages[start : start + size] for start in range(0, len(pages), size)]


def read_manuals(paths: list[Path]) -> Harvest:
    """Read manual pages; a page's one-line description is the summary of its DESCRIPTION section."""
    documents: list[Document] = []
    pairs: list[Pair] = []
    for path in paths:
        name = path.name.split(".")[0]
        try:
            text = strip_roff(gzip.decompress(path.read_bytes()).decode("utf-8"))
        except (OSError, EOFError, UnicodeDecodeError):
            continue
        documents.extend(Document("manual", name, piece) for piece in cut_at_paragraphs(text))
        summary = re.search(r"^NAME\n+.*? -+ (.+?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
        body = re.search(r"^DESCRIPTION\n+(.+?)(?=\n\n[A-Z ]{4,}\n|\Z)", text, re.MULTILINE | re.DOTALL)
        if summary and body:
            pairs += described("manual", name, body[1], " ".join(summary[1].split()))
    return Harvest(documents, pairs)
