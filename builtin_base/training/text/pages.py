"""Documentation pages: HTML under ``/usr/share/doc`` and info manuals, one document a section."""

from __future__ import annotations

import gzip
import html.parser
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from builtin_base.training.text.debian import DOC
from builtin_base.training.text.documents import Document, cut_at_paragraphs

MAX_PAGES, MAX_PAGE_BYTES = 2_500, 600_000
"""Pages read of one documentation package, and the largest of them, in bytes."""

HEADING = "\n\n## "
"""A line of its own before each section of a page, so that a section's title can be told from its text."""

_INFO = Path("/usr/share/info")
_BLOCKS = frozenset(("p", "li", "dd", "dt", "pre", "tr", "div", "section", "table", "ul", "ol", "dl", "br", "title"))
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5"))
_SKIPPED = frozenset(("script", "style", "nav", "head", "footer", "header", "form"))
_LANGUAGE = re.compile(r"""\blang=["']([A-Za-z-]+)""")
_TRANSLATION = re.compile(r"/(?!en)[a-z]{2}([-_][A-Z]{2})?/|\.(?!en)[a-z]{2}([-_][a-z]{2})?\.html$")
"""Folders and files named by a language other than English, e.g. ``/de-DE/`` and ``.fr.html``."""

_INFO_RULER = re.compile(r"^(.+)\n[*=\-.]{3,}$", re.MULTILINE)


class _Page(html.parser.HTMLParser):
    """Collects the running text of a page, with headings marked by `HEADING`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _SKIPPED:
            self._skipped += 1
        elif tag in _HEADINGS:
            self.parts.append(HEADING)
        elif tag in _BLOCKS:
            self.parts.append("\n\n" if tag in ("p", "pre", "div", "section") else "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SKIPPED:
            self._skipped = max(0, self._skipped - 1)
        elif tag in _HEADINGS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.parts.append(data.replace("¶", ""))


def html_text(page: str) -> str:
    """Reduce an HTML page to its running text, headings marked by `HEADING`, nothing of menus and scripts."""
    parser = _Page()
    parser.feed(page)
    text = re.sub(r"[ \t]+", " ", "".join(parser.parts))
    return re.sub(r"\n\s*\n+", "\n\n", text).strip()


def read_pages() -> Iterator[Document]:
    """Read the HTML documentation under ``/usr/share/doc`` and the info manuals, one document per section."""
    for package in sorted(path for path in DOC.iterdir() if path.is_dir()):
        pages = (p for p in sorted(package.rglob("*.html")) if p.is_file() and p.stat().st_size <= MAX_PAGE_BYTES)
        for path in itertools.islice((p for p in pages if not _TRANSLATION.search(str(p))), MAX_PAGES):
            page = path.read_text(encoding="utf-8", errors="ignore")
            language = _LANGUAGE.search(page[:2_000])
            if language is None or language[1].startswith("en"):
                yield from (Document("page", package.name, section) for section in sections(html_text(page)))
    for path in sorted(_INFO.glob("*.gz")):
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "ignore")
        text = _INFO_RULER.sub(lambda match: f"{HEADING}{match[1]}\n\n", text.replace("\x1f", "\n\n"))
        yield from (Document("page", path.name.split(".")[0], section) for section in sections(text))


def sections(text: str) -> Iterator[str]:
    """Cut a page at its headings into ``TITLE\\n\\nTEXT``, long sections at paragraphs."""
    for part in text.split(HEADING.strip("\n")):
        title, _, body = part.strip().partition("\n")
        title = " ".join(title.split())[:100]
        for piece in cut_at_paragraphs(body):
            if len(piece) > len(title) // 2:
                yield f"{title}\n\n{piece}"
