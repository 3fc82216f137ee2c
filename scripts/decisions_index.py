"""Index of docs/decisions: `python -m scripts.decisions_index` writes its README.md, `--check` fails on drift.

The index is made from the files alone, so that it cannot say something else than they do.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DECISIONS = Path(__file__).parents[1] / "docs" / "decisions"

_FILE = re.compile(r"(\d{4})-[a-z0-9]+(-[a-z0-9]+)*\.md")
_HEAD = re.compile(
    r"# (?P<number>\d{4}) · (?P<title>.+)\n\nDate: (?P<date>\d{4}-\d\d-\d\d)\n\nStatus: (?P<status>.+)\n\n"
)
_STATUS = re.compile(r"accepted(, amended by LINK(, LINK)*)?|superseded by LINK".replace("LINK", r"\[\d{4}\]\([^)]+\)"))
_SECTIONS = ("Context", "Decision", "Cost", "Considered", "Negative")
_REQUIRED = ("Context", "Decision")

_INTRODUCTION = """\
# Decisions

What was decided, when, and what it costs; newest last.
Each file says the **context**, the **decision**, where it has one its **cost**, what else was **considered**, and as
**negative** what was tried and failed.
A decision that another one replaces stays here, marked as superseded; one that is only changed in part is amended.
What an accepted decision says of code may have been refined since: the code and [its concepts](../concepts/) are right.

A new decision is a new file with the next number. `python -m scripts.decisions_index` writes this table.
"""


@dataclass(frozen=True)
class Decision:
    """One decision file, as its first lines give it."""

    path: Path
    number: str
    title: str
    date: str
    status: str


def read_decision(path: Path) -> Decision:
    """The decision in a file. Raises ValueError, which names the file, for one that is not written as all are."""
    text = path.read_text(encoding="utf-8")
    head = _HEAD.match(text)
    if not _FILE.fullmatch(path.name) or head is None:
        raise ValueError(f"{path.name}: wanted NNNN-title.md with '# NNNN · Title', 'Date:' and 'Status:'")
    decision = Decision(path, **head.groupdict())
    if decision.number != path.name[:4]:
        raise ValueError(f"{path.name}: its heading says {decision.number}")
    if not _STATUS.fullmatch(decision.status):
        raise ValueError(f"{path.name}: status {decision.status!r} is neither accepted, amended nor superseded")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    ordered = [section for section in _SECTIONS if section in sections]
    if sections != ordered or not set(_REQUIRED) <= set(sections):
        raise ValueError(f"{path.name}: sections are {sections}, wanted in this order {_SECTIONS}")
    return decision


def read_decisions(folder: Path = DECISIONS) -> list[Decision]:
    """All decisions by number. Raises ValueError where a file is malformed, or a number is missing or twice there."""
    decisions = [read_decision(path) for path in sorted(folder.glob("*.md")) if path.name != "README.md"]
    numbers = [int(decision.number) for decision in decisions]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(f"numbers of decisions are not 1 to {len(numbers)}, each once: {numbers}")
    return decisions


def index(decisions: Sequence[Decision]) -> str:
    """The text of docs/decisions/README.md."""
    return "\n".join([_INTRODUCTION, *_rows(decisions)]) + "\n"


def main(arguments: Sequence[str], folder: Path = DECISIONS) -> int:
    """0 if the index is up to date now; 1 if `--check` found that it is not."""
    page = folder / "README.md"
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    after = index(read_decisions(folder))
    if before == after:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{page} is not what the decisions say: run `python -m scripts.decisions_index`\n")
        return 1
    page.write_text(after, encoding="utf-8")
    return 0


def _rows(decisions: Sequence[Decision]) -> Iterator[str]:
    yield "| | decision | date | status |"
    yield "| --- | --- | --- | --- |"
    for decision in decisions:
        link = f"[{decision.title}]({decision.path.name})"
        yield f"| {decision.number} | {link} | {decision.date} | {decision.status} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
