"""Pages that are written by a program: brought up to date, or checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def bring_up_to_date(page: Path, text: str, command: str, arguments: Sequence[str]) -> int:
    """Write `text` to a page; with --check among the arguments only compare.

    Args:
        page: the file.
        text: what it should hold.
        command: what rewrites the page, for the message.
        arguments: the script's own.

    Returns:
        The exit status: 1 if `--check` found another text, else 0.
    """
    before = page.read_text(encoding="utf-8") if page.exists() else None
    if before == text:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{page} is not what the code says: run `{command}`\n")
        return 1
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    return 0


def with_section(page: str, name: str, text: str) -> str:
    """The page with another text between the marks `<!-- generated: NAME -->` and `<!-- end: NAME -->` of a section.

    Raises ValueError where it has no such marks.
    """
    begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
    before, found, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"the page has no section {name!r}")
    return f"{before}{begin}{text.strip()}\n{end}{after}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a | within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
