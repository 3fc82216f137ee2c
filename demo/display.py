"""The demo's display: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from demo.fleet import BoardView

REDRAW_S = 0.5
LINE_EVERY_S = 5.0
COLUMNS = (
    ("board", 10),
    ("memory", 8),
    ("format", 6),
    ("strands", 9),
    ("round", 6),
    ("doing", 25),
    ("loss", 7),
    ("tokens/s", 9),
    ("peak", 9),
    ("up", 9),
    ("down", 9),
)


class Display:
    """Shows board views. `out` decides between redrawing in place and plain lines."""

    def __init__(self, out: TextIO = sys.stdout):
        self._out = out
        self._live = out.isatty()
        self._lines_shown = 0
        self._last_s = 0.0

    def say(self, line: str = "") -> None:
        """A line that stays."""
        self._erase()
        print(line, file=self._out, flush=True)

    def show(self, views: Sequence[BoardView], *, force: bool = False) -> None:
        """The boards as they are now, at most twice a second (every five seconds where nothing can be redrawn)."""
        now_s = time.monotonic()
        if not force and now_s - self._last_s < (REDRAW_S if self._live else LINE_EVERY_S):
            return
        self._last_s = now_s
        rows = ["  " + " ".join(f"{title:<{width}}" for title, width in COLUMNS)]
        for view in views:
            cells = zip(row(view), COLUMNS, strict=True)
            rows.append("  " + " ".join(f"{cell:<{width}.{width}}" for cell, (_, width) in cells))
        self._erase()
        print("\n".join(rows), file=self._out, flush=True)
        self._lines_shown = len(rows) if self._live else 0

    def keep(self, views: Sequence[BoardView]) -> None:
        """Show the boards once more, and leave the table where it is."""
        self.show(views, force=True)
        self._lines_shown = 0

    def _erase(self) -> None:
        if self._lines_shown:
            print(f"\x1b[{self._lines_shown}F\x1b[J", end="", file=self._out)
            self._lines_shown = 0


def row(view: BoardView) -> tuple[str, ...]:
    """One board's cells, in COLUMNS' order."""
    last, plan = view.last, view.plan
    doing = view.state
    if last.get("steps") and view.state in ("train", "profile", "evaluate"):
        doing = f"{view.state} {bar(last.get('step', 0) / last['steps'])} {last.get('step', 0)}/{last['steps']}"
    strands = str(plan.get("ranks_total", ""))
    return (
        view.spec.name,
        view.spec.memory,
        str(plan.get("format", "")),
        strands,
        str(last.get("round", "")),
        doing,
        f"{last['loss']:.3f}" if isinstance(last.get("loss"), float) else "",
        f"{last['tokens_per_s']:,.0f}" if last.get("tokens_per_s") else "",
        size(last.get("peak_bytes")),
        size(last.get("bytes_up")),
        size(last.get("bytes_down")),
    )


def bar(share: float, width: int = 8) -> str:
    full = round(width * min(1.0, max(0.0, share)))
    return "█" * full + "·" * (width - full)


def size(n_bytes: float | None) -> str:
    """Bytes for people: 812 kB, 1.4 MB, 431 MiB for memory-sized things stays in MiB."""
    if not n_bytes:
        return ""
    if n_bytes >= 64 * 2**20:
        return f"{n_bytes / 2**20:.0f} MiB"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"
