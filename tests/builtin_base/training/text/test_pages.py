"""Documentation pages become sections of running text."""

from __future__ import annotations

from builtin_base.training.text import pages
from builtin_base.training.text.documents import MAX_DOCUMENT_CHARS


def test_pages_lose_markup() -> None:
    """A page's headings become sections, its menus and scripts go."""
    menus = "<html><script>x()</script><nav>Menu</nav>"
    page = f"{menus}<h1>Tides</h1><p>High &amp; low.</p><h2>Moon</h2><p>It pulls.</p></html>"
    assert list(pages.sections(pages.html_text(page))) == ["Tides\n\nHigh & low.", "Moon\n\nIt pulls."]


def test_long_sections_are_cut_at_paragraphs() -> None:
    """Each piece keeps its section's title, and no paragraph is torn."""
    paragraphs = [f"{i} " + "x" * (MAX_DOCUMENT_CHARS // 3) for i in range(4)]

    found = list(pages.sections(f"{pages.HEADING}Tides\n\n" + "\n\n".join(paragraphs)))

    assert len(found) > 1
    assert all(piece.startswith("Tides\n\n") for piece in found)
    assert [p for piece in found for p in piece.split("\n\n")[1:]] == paragraphs
