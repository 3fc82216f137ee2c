"""Elements of a page, as trees: text becomes text whatever stands in it, and nothing is ever joined to markup."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from braid_common.units import printable

Child = Element | str

MAX_ROWS = 500
"""Rows of a table of the page, such as boards or rounds; the JSON has all."""


def element(tag: str, *children: Child, **attributes: object) -> Element:
    """An element with text and elements in it. An attribute's `_` stands for `-`, and one at its end for nothing:
    `class_`, `stroke_width`. Others' words lose what cannot be seen: a mark that turns the writing direction would turn
    the rest of the page with it."""
    made = Element(tag, {_name(key): printable(str(value)) for key, value in attributes.items() if value != ""})
    last: Element | None = None
    for child in children:
        if isinstance(child, str):
            text = printable(child)
            if last is None:
                made.text = (made.text or "") + text
            else:
                last.tail = (last.tail or "") + text
        else:
            made.append(child)
            last = child
    return made


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def name_of(label: str) -> Element:
    """A board's name, whose letters may run from right to left where its neighbours' do not."""
    return element("bdi", label)


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Child]], *, texts: Sequence[int] = (), is_last: bool = False
) -> Element:
    """A table that scrolls by itself, of the first MAX_ROWS rows, or with `is_last` of the last ones; its first column
    and those at `texts` are text, the others are numbers."""
    more = max(0, len(rows) - MAX_ROWS)
    rows = rows[more:] if is_last else rows[:MAX_ROWS]

    def row(tag: str, cells: Sequence[Child]) -> Element:
        kinds = ["text" if not place or place in texts else "" for place in range(len(cells))]
        return element("tr", *(element(tag, cell, class_=kind) for cell, kind in zip(cells, kinds, strict=True)))

    parts = [
        element("table", element("thead", row("th", heads)), element("tbody", *(row("td", cells) for cells in rows)))
    ]
    if more:
        parts.append(element("p", f"… and {more:,} more, which are in report.json", class_="quiet"))
    return element("div", *parts, class_="scroll")


def facts(pairs: Sequence[tuple[str, str, str]]) -> Element:
    """Numbers in large print: what each is, the number, and a word about it."""
    tiles = [
        element(
            "div", element("span", what, class_="quiet"), element("b", number), element("small", note), class_="fact"
        )
        for what, number, note in pairs
    ]
    return element("div", *tiles, class_="facts")
