"""Tables of the commands: what people read, and the same as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.report import ranking_table
from aggregator.report.text_cells import lengths_text, text_cells
from braid_common.units import printable, show_seconds, show_size


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be; control characters of boards' names cannot reach the terminal."""
    clean = [[printable(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(len(row[i]) for row in clean) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in clean
    )


def status_text(facts: Mapping[str, Any]) -> str:
    """`aggregator status`."""
    run = facts["run"]
    left = "" if run["time_left_s"] is None else f", {show_seconds(round(run['time_left_s']))} left"
    what = "updates" if run["version"] else "profiles"
    stale = f", {run['stale']} of older versions" if run["stale"] else ""
    lines = [
        f"{printable(run['name'])} ({run['id']}): {run['state']}, {run['mode']}, round {run['round']} of "
        f"{run['rounds']}{left}, version {run['version']}, {run['accepted']} {what} ({run['quorum']} needed{stale})",
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
    for what, key in (("last refusal", "reason"), ("last event", "event")):
        lines += [f"{printable(b['name'])}: {what}: {printable(b[key])}" for b in facts["boards"] if b[key]]
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
            show_seconds(round(row["closed_at"] - row["opened_at"])) if row["closed_at"] else "",
            _spread(losses[row["version"]]) if row["version"] in losses else "",
            row["reason"],
        ]
        for row in facts["rounds"]
    ]
    return table(["round", "state", "on version", "updates", "took", "held-out loss", "why it closed"], rows)


def _spread(evaluation: Mapping[str, Any]) -> str:
    if evaluation["mean_loss"] is None:
        return ""
    return f"{evaluation['mean_loss']:.3f} mean, {evaluation['worst_loss']:.3f} worst ({evaluation['worst_board']})"


def _board(board: Mapping[str, Any]) -> list[str]:
    state = "revoked" if board["revoked"] else "silent" if not board["live"] else board["phase"] or "alive"
    held_out = board["evaluation"].get("loss")
    return [
        board["name"],
        "waiting" if board["answered"] and state not in ("revoked", "silent") else state,
        *text_cells(board["text"]),
        board["plan"],
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
