"""One line of a checkup: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "damaged"]
"""`warning`: works, and somebody should know; `damaged`: what the run needs is missing or is not what it was."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the folder, and how it is.

    Attributes:
        what: in a word or two.
        text: the sentence about it.
        hint: what to do; "" for nothing.
    """

    what: str
    state: State
    text: str
    hint: str = ""


def damaged(what: str, text: str, hint: str) -> Finding:
    return Finding(what, "damaged", text, hint)


def findings_text(found: Finding) -> str:
    """A finding as one line, and one for what to do."""
    state = found.state if found.state == "ok" else found.state.upper()
    line = f"{state:8} {found.what:12} {found.text}"
    return f"{line}\n  → {found.hint}" if found.hint else line
