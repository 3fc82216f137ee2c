"""The status as a page: read-only, one document, nothing from elsewhere.

Boards choose names and sentences: each is escaped, rid of what cannot be seen (a mark that turns the writing direction
would turn the rest of the page with it), and names are kept apart from their neighbours by <bdi>.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest
from typing import Any

from aggregator.report import ranking_table
from aggregator.report.board_state import board_state, how_it_counts, run_is_over, why_copied, why_it_gave_up
from aggregator.report.text_cells import lengths_text, text_cells, took_text, turned_away_text
from braid_common.units import printable, show_seconds, show_size

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bad: #d33; --good: #2a7; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
.facts { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: .5rem 0; }
.facts b { font-weight: 600; } .quiet { opacity: .65; } .bad { color: var(--bad); } .good { color: var(--good); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; background: var(--soft); } th.text, td.text { text-align: left; }
td.text { white-space: normal; min-width: 6rem; max-width: 24rem; overflow-wrap: anywhere; }
td.note { text-align: left; white-space: normal; } td.note div { max-width: min(80rem, 88vw); overflow-wrap: anywhere; }
tr.noted td { border-bottom: 0; padding-bottom: 0; }
progress { width: 100%; height: .5rem; } ul { padding-left: 1.2rem; margin: 0; } #gone { display: none; }
"""

SCRIPT = """
const main = document.querySelector("main"), gone = document.querySelector("#gone");
async function refresh() {
  if (!document.hidden) {
    try {
      const here = location.origin + location.pathname;  // with a proxy's prefix, and no user:password
      const answer = await fetch(here + "?part=1", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      main.innerHTML = await answer.text();
      gone.style.display = "none";
    } catch { gone.style.display = "block"; }
  }
  setTimeout(refresh, 3000);
}
setTimeout(refresh, 3000);
"""


BOARD_COLUMNS = (
    *("board", "state", "examples", "tokens (95 %)", "cut", "plan", "strands", "step", "loss", "held-out", "ROUGE-L"),
    *("tokens/s", "peak", "up", "down", "updates"),
)
TEXT_COLUMNS = frozenset({"board", "state", "plan", "worst board", "why it closed", "weight"})
"""Columns that may wrap; the others hold numbers and are aligned to the right."""


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Only our own style and script, by their hash: a name that slipped through the escaping could still not run."""


def page(facts: Mapping[str, Any]) -> str:
    """The whole document."""
    title = escape(printable(f"{facts['run']['name']} – Braid"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f'<body><p id="gone" class="bad">The server does not answer; trying again.</p>'
        f"<main>{fragment(facts)}</main><script>{SCRIPT}</script></body></html>"
    )


def fragment(facts: Mapping[str, Any]) -> str:
    """The part that changes."""
    parts = [
        _head(facts),
        _boards(facts["boards"]),
        _evaluations(facts["evaluations"]),
        _rounds(facts["rounds"]),
        _ranking(facts["ranking"]),
        _turned_away(facts.get("guard")),
    ]
    events = "".join(f"<li>{_text(event)}</li>" for event in reversed(facts["events"]))
    return "".join(parts) + (f"<h2>Events, newest first</h2><ul>{events}</ul>" if events else "")


def _head(facts: Mapping[str, Any]) -> str:
    run, base = facts["run"], facts["base"]
    left = "" if run["time_left_s"] is None else f" · {show_seconds(round(run['time_left_s']))} left"
    stale = f", {run['stale']} of older versions" if run["stale"] else ""
    over = run_is_over(run)
    needed = ("updates" if run["version"] else "profiles", f"{run['accepted']} of {run['quorum']} needed{stale}")
    pairs = [
        ("state", run["state"]),
        ("mode", run["mode"]),
        ("round", f"{run['round']} of {run['rounds']}{left}"),
        *([] if over else [needed]),
        ("version", run["version"]),
        ("tokens", lengths_text(run)),
        ("base", f"{base['model']} ({base['digest'][:12]}…)"),
    ]
    facts_html = "".join(f"<span>{escape(key)} <b>{_text(str(value))}</b></span>" for key, value in pairs)
    done = run["rounds"] if run["state"] == "finished" else max(0, run["round"] - 1)
    waiting = f"<p>waiting for {escape(run['waiting_for'])}</p>" if run["waiting_for"] else ""
    warnings = "".join(f'<p class="bad">{escape(warning)}</p>' for warning in run["warnings"])
    return (
        f'<h1>{_text(run["name"])} <span class="quiet">{escape(run["id"])}</span></h1>'
        f'<div class="facts">{facts_html}</div>{waiting}{warnings}'
        f'<progress max="{int(run["rounds"])}" value="{int(done)}"></progress>'
        + (f'<p class="good">{escape(over[:1].upper() + over[1:])}.</p>' if over else "")
    )


def _boards(boards: Sequence[Mapping[str, Any]]) -> str:
    if not boards:
        return '<h2>Boards</h2><p class="quiet">None has joined yet. `aggregator serve` printed the command.</p>'
    notes = [_note(board) for board in boards]
    return f"<h2>Boards</h2>{_table(BOARD_COLUMNS, [_board(board) for board in boards], notes)}"


def _note(board: Mapping[str, Any]) -> str:
    why, copied = why_it_gave_up(board), why_copied(board)
    copy = f'<span class="bad">{_text(copied)}</span>' if copied else ""
    end = f'<span class="bad">it gave up: {_text(why)}</span>' if why else ""
    refusal = f'<span class="bad">last refusal: {_text(board["reason"])}</span>' if board["reason"] else ""
    event = f"last event: {_text(board['event'])}" if board["event"] else ""
    return "<br>".join(filter(None, (copy, end, refusal, how_it_counts(board), event)))


def _board(board: Mapping[str, Any]) -> list[str]:
    held_out = board["evaluation"]
    step = "" if board["step"] is None else f"{board['step']:.0f}/{board['steps'] or 0:.0f}"
    return [
        _name(board["name"]) + _quiet("" if board["device"] == board["name"] == board["label"] else board["device"]),
        _state(board),
        *map(escape, text_cells(board["text"])),
        _text(board["plan"]),
        f"{board['strands']} on {board['weights']}" if board["strands"] else "",
        step,
        _number(board["loss"] or None, 3),  # 0 before the first step
        _number(held_out.get("loss"), 3),
        _number(held_out.get("rougeL"), 3),
        _number(board["tokens_per_s"], 0),
        "" if board["peak_bytes"] is None else show_size(board["peak_bytes"]),
        show_size(board["bytes_up"]),
        show_size(board["bytes_down"]),
        f"{board['accepted']}"
        + (f' <span class="bad">−{board["refused"]}</span>' if board["refused"] else "")
        + _quiet(f"last {board['staleness']} behind" if board["staleness"] else ""),
    ]


def _quiet(text: str) -> str:
    return f' <span class="quiet">{escape(text)}</span>' if text else ""


def _state(board: Mapping[str, Any]) -> str:
    words, tone = board_state(board)
    return f'<span class="{tone}">{_text(words)}</span>' if tone else _text(words)


def _text(text: str) -> str:
    """Another's words as HTML."""
    return escape(printable(text))


def _name(name: str) -> str:
    """A name as HTML, whose letters may run from right to left where their neighbours' do not."""
    return f"<bdi>{_text(name)}</bdi>"


def _evaluations(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    heads = ("version", "mean loss", "worst loss", "worst board", "ROUGE-L", "boards")
    cells = (
        [
            str(int(row["version"])),
            _number(row["mean_loss"], 4),
            _number(row["worst_loss"], 4),
            _name(row["worst_label"] or ""),
            _number(row["rougeL"], 4),
            str(int(row["boards"])),
        ]
        for row in reversed(rows)
    )
    return f"<h2>Held-out text of the boards</h2>{_table(heads, list(cells))}"


def _rounds(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    heads = ("round", "state", "on version", "accepted", "of these stale", "refused", "took", "why it closed")
    cells = (
        [
            str(int(row["round"])),
            escape(row["state"]),
            str(int(row["version"])),
            str(int(row["accepted"])),
            str(int(row["stale"])),
            str(int(row["refused"])),
            took_text(row),
            _text(row["reason"]),
        ]
        for row in reversed(rows)
    )
    return f"<h2>Rounds</h2>{_table(heads, list(cells))}"


def _ranking(ranking: Mapping[str, Any]) -> str:
    if not ranking["weights"]:
        return ""
    rows = [[escape(cell) for cell in row] for row in ranking_table.rows(ranking)]
    title = ranking_table.title(ranking)
    return f"<h2>{escape(title[:1].upper() + title[1:])}</h2>{_table(ranking_table.heads(ranking), rows)}"


def _turned_away(guard: Mapping[str, Any] | None) -> str:
    text = turned_away_text(guard)
    return f'<p class="quiet">{escape(text)}</p>' if text else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """`rows` and `notes` hold HTML; a note that is not empty gets a line of its own below its row."""
    head = _cells("th", heads, heads)
    body = []
    for row, note in zip_longest(rows, notes, fillvalue=""):
        body.append(
            f'<tr class="noted">{_cells("td", heads, row)}</tr>' if note else f"<tr>{_cells('td', heads, row)}</tr>"
        )
        if note:
            body.append(f'<tr><td class="note" colspan="{len(heads)}"><div>{note}</div></td></tr>')
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _cells(tag: str, heads: Sequence[str], row: Sequence[str]) -> str:
    kinds = (' class="text"' if head in TEXT_COLUMNS else "" for head in heads)
    return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
