"""Tables of the commands: what people read, and the same as JSON for programs."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.report import ranking_table
from aggregator.report.board_state import board_state, how_it_counts, run_is_over, why_copied, why_it_gave_up
from aggregator.report.text_cells import lengths_text, text_cells, took_text, turned_away_text
from braid_common.units import printable, show_seconds, show_size

MAX_CELL_CHARS = 60
"""A board's words in a table; its device id, which no board chooses, has at most 50."""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; control characters of boards' names cannot reach the terminal."""
    clean = [[printable(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(_cells(row[i]) for row in clean) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell + " " * (width - _cells(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in clean
    )


def _cells(text: str) -> int:
    """Cells of a terminal that a text takes: Chinese, Japanese and Korean characters two each, accents of their own
    none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def status_text(facts: Mapping[str, Any]) -> str:
    """`aggregator status`."""
    run = facts["run"]
    left = "" if run["time_left_s"] is None else f", {show_seconds(round(run['time_left_s']))} left"
    what = "updates" if run["version"] else "profiles"
    stale = f", {run['stale']} of older versions" if run["stale"] else ""
    state = run_is_over(run) or (
        f"{run['state']}, {run['mode']}, round {run['round']} of {run['rounds']}{left}, version {run['version']}, "
        f"{run['accepted']} {what} ({run['quorum']} needed{stale})"
    )
    lines = [
        f"{printable(run['name'])} ({run['id']}): {state}",
        f"texts of {lengths_text(run)} tokens",
        *([f"waiting for {run['waiting_for']}"] if run["waiting_for"] else []),
        *(f"WARNING: {warning}" for warning in run["warnings"]),
        "",
        table(
            [
                *("board", "state", "examples", "tokens (95 %)", "cut", "plan", "strands", "step", "loss", "held-out"),
                *("tokens/s", "peak", "up", "down", "sent"),
            ],
            [_board(board) for board in facts["boards"]],
        ),
    ]
    for board in facts["boards"]:
        said = (
            ("WARNING", why_copied(board)),
            ("weight", how_it_counts(board)),
            ("gave up", why_it_gave_up(board)),
            ("last refusal", board["reason"]),
            ("last event", board["event"]),
        )
        lines += [f"{printable(board['label'])}: {what}: {printable(text)}" for what, text in said if text]
    if turned_away := turned_away_text(facts.get("guard")):
        lines += ["", turned_away]
    if facts["evaluations"]:
        newest = facts["evaluations"][-1]
        lines += ["", f"held-out loss of version {newest['version']}: {_spread(newest)}"]
    if facts["ranking"]["weights"]:
        ranking = facts["ranking"]
        lines += ["", ranking_table.title(ranking), table(ranking_table.heads(ranking), ranking_table.rows(ranking))]
    return "\n".join(lines)


def rounds_text(facts: Mapping[str, Any]) -> str:
    """`aggregator rounds`."""
    losses = {row["version"]: row for row in facts["evaluations"]}
    rows = [
        [
            str(row["round"]),
            row["state"],
            str(row["version"]),
            f"{row['accepted']}"
            + (f", {row['stale']} stale" if row["stale"] else "")
            + (f" (−{row['refused']})" if row["refused"] else ""),
            took_text(row),
            _spread(losses[row["version"]]) if row["version"] in losses else "",
            row["reason"],
        ]
        for row in facts["rounds"]
    ]
    return table(["round", "state", "on version", "updates", "took", "held-out loss", "why it closed"], rows)


def _spread(evaluation: Mapping[str, Any]) -> str:
    if evaluation["mean_loss"] is None:
        return ""
    worst = printable(evaluation["worst_label"])
    return f"{evaluation['mean_loss']:.3f} mean, {evaluation['worst_loss']:.3f} worst ({worst})"


def _board(board: Mapping[str, Any]) -> list[str]:
    held_out = board["evaluation"].get("loss")
    return [
        _shortened(board["label"]),
        _shortened(board_state(board)[0]),
        *text_cells(board["text"]),
        _shortened(board["plan"]),
        str(board["strands"] or ""),
        "" if board["step"] is None else f"{board['step']:.0f}/{board['steps'] or 0:.0f}",
        "" if not board["loss"] else f"{board['loss']:.3f}",
        "" if held_out is None else f"{held_out:.3f}",
        "" if board["tokens_per_s"] is None else f"{board['tokens_per_s']:.0f}",
        "" if board["peak_bytes"] is None else show_size(board["peak_bytes"]),
        show_size(board["bytes_up"]),
        show_size(board["bytes_down"]),
        f"{board['accepted']}"
        + (f" (−{board['refused']})" if board["refused"] else "")
        + (f", last {board['staleness']} behind" if board["staleness"] else ""),
    ]


def _shortened(text: str) -> str:
    """A board's words, the middle of long ones left out: the end may be what tells two boards apart."""
    if len(text) <= MAX_CELL_CHARS:
        return text
    half = (MAX_CELL_CHARS - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
