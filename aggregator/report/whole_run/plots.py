"""Plots as inline SVG whose colours are the page's: lines over versions, bars of boards, parts of a whole. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from aggregator.report.whole_run.elements import element

WIDTH = 760
"""Width of every plot in its own units; the page scales it to what there is."""

LEFT, RIGHT, TOP, BOTTOM = 52, 16, 12, 34
"""Room around a plot of lines for its axes."""

HEIGHT = 260
"""Height of a plot of lines."""

ROW = 22
"""Height of a bar with the room around it."""

NAME_WIDTH = 150
"""Room for the names beside bars."""

CHAR_WIDTH = 7
"""Room for a character of a word, in the plot's units; most are narrower."""

MAX_NAME_CHARS = 22
"""Characters of a name beside a bar."""

MAX_LINES = 60
"""Boards that have a line of their own: more are a blot."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points (x, y). `kind` is its class on the page: mean, worst or board."""

    label: str
    kind: str
    points: Sequence[tuple[float, float]]


def lines(drawn: Sequence[Line], x_title: str, y_title: str, show: Callable[[float], str]) -> Element | None:
    """Lines over a common x; None where there are not two different x."""
    xs = sorted({x for line in drawn for x, _ in line.points})
    if len(xs) < 2:
        return None
    ys = [y for line in drawn for _, y in line.points]
    low, high = _with_room(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for step in range(5):
        value = low + (high - low) * step / 4
        _, y = place(xs[0], value)
        parts.append(_stroke(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(_text(LEFT - 6, y + 4, show(value), "end"))
    for x in xs[:: max(1, -(-len(xs) // 10))]:
        parts.append(_text(place(x, low)[0], HEIGHT - BOTTOM + 16, f"{x:g}", "middle"))
    parts.append(_text(WIDTH / 2, HEIGHT - 4, x_title, "middle"))
    for line in drawn:
        points = [place(x, y) for x, y in line.points]
        path = element("polyline", element("title", line.label), points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
        path.set("class", f"line {line.kind}")
        parts.append(path)
        if line.kind != "board":
            parts += [
                element(
                    "circle",
                    element("title", f"{line.label}: {show(y)}"),
                    cx=f"{at[0]:.1f}",
                    cy=f"{at[1]:.1f}",
                    r=3,
                    class_=f"dot {line.kind}",
                )
                for at, (_, y) in zip(points, line.points, strict=True)
            ]
    return _svg(HEIGHT, y_title, parts)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from zero: its name, its value, the word behind it, and its class on the page."""

    name: str
    value: float
    word: str
    kind: str


def bars(drawn: Sequence[Bar], title: str) -> Element | None:
    """Bars beneath each other, to both sides of zero; None where there is none."""
    if not drawn:
        return None
    low, high = min(0.0, *(bar.value for bar in drawn)), max(0.0, *(bar.value for bar in drawn))
    reach = (high - low) or 1.0
    room = 10 + CHAR_WIDTH * max(len(bar.word) for bar in drawn)  # words stand beyond the ends of bars
    first, last = NAME_WIDTH + (room if low < 0 else 0), WIDTH - room

    def at(value: float) -> float:
        return first + (value - low) / reach * (last - first)

    parts = [_stroke(at(0), 0, at(0), ROW * len(drawn), "axis")]
    for row, bar in enumerate(drawn):
        y, ends = row * ROW, sorted((at(0), at(bar.value)))
        parts.append(_text(NAME_WIDTH - 6, y + 15, _short(bar.name), "end"))
        parts.append(_rectangle(ends[0], y + 4, ends[1] - ends[0], bar.kind, f"{bar.name}: {bar.word}"))
        is_left = bar.value < 0
        parts.append(_text(ends[0] - 4 if is_left else ends[1] + 4, y + 15, bar.word, "end" if is_left else "start"))
    return _svg(ROW * len(drawn), title, parts)


def stacked(
    rows: Sequence[tuple[str, Mapping[str, float]]], show: Callable[[float], str], title: str
) -> Element | None:
    """Parts of a whole side by side, a row for each whole, all on one scale; the parts are classes on the page."""
    longest = max((sum(parts.values()) for _, parts in rows), default=0.0)
    if not longest > 0:
        return None
    scale = (WIDTH - NAME_WIDTH - 90) / longest
    drawn = []
    for row, (name, parts) in enumerate(rows):
        y, x = row * ROW, float(NAME_WIDTH)
        drawn.append(_text(NAME_WIDTH - 6, y + 15, _short(name), "end"))
        for place, (part, value) in enumerate(parts.items()):
            drawn.append(_rectangle(x, y + 4, value * scale, f"part{place}", f"{name}, {part}: {show(value)}"))
            x += value * scale
        drawn.append(_text(x + 5, y + 15, show(sum(parts.values())), "start"))
    return _svg(ROW * len(rows), title, drawn)


def legend(entries: Sequence[tuple[str, str]]) -> Element:
    """The colours of a plot, by their classes on the page, and what they mean."""
    return element(
        "p", *(element("span", element("i", class_=f"key {kind}"), words) for kind, words in entries), class_="legend"
    )


def _svg(height: float, title: str, parts: Sequence[Element]) -> Element:
    view = {"viewBox": f"0 0 {WIDTH} {height:g}", "xmlns": "http://www.w3.org/2000/svg", "role": "img"}
    made = element("svg", element("title", title), *parts)
    for name, value in view.items():
        made.set(name, value)
    return made


def _rectangle(x: float, y: float, width: float, kind: str, words: str) -> Element:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{max(width, 0.5):.1f}", "height": ROW - 8}
    return element("rect", element("title", words), class_=kind, **place)


def _stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _text(x: float, y: float, words: str, anchor: str) -> Element:
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME_CHARS else f"{name[: MAX_NAME_CHARS - 1]}…"


def _with_room(low: float, high: float) -> tuple[float, float]:
    """Limits a little beyond what is drawn, and apart where all of it is one number."""
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room
