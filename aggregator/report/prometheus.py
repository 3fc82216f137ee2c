"""The status as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wire.rounds import RunState


def exposition(facts: Mapping[str, Any]) -> str:
    """Metrics of `status.describe`'s facts. Boards are labelled by device id and name."""
    return "".join(f"{line}\n" for line in _lines(facts))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    run, boards = facts["run"], facts["boards"]
    yield from _metric("braid_run_state", "gauge", "1 for the state the run is in.")
    for state in RunState:
        yield f'braid_run_state{{state="{state.value}"}} {int(run["state"] == state.value)}'
    for name, kind, text in (
        ("round", "gauge", "Round that is open, or the last one."),
        ("rounds", "gauge", "Rounds of the run."),
        ("version", "gauge", "Newest version of the adapter."),
        ("accepted", "gauge", "Updates accepted in the open round."),
        ("stale", "gauge", "Of these, trained on an older version."),
    ):
        yield from _metric(f"braid_{name}", kind, text)
        yield f"braid_{name} {run[name]}"
    yield from _metric("braid_boards", "gauge", "Enrolled boards that are alive, and those that are not.")
    for live in (True, False):
        yield f'braid_boards{{live="{str(live).lower()}"}} {sum(board["live"] is live for board in boards)}'
    yield from _board_lines(boards)
    if "guard" in facts:
        yield from _guard_lines(facts["guard"])
    if facts["evaluations"]:
        yield from _loss_lines(facts["evaluations"][-1])


def _board_lines(boards: list[Mapping[str, Any]]) -> Iterator[str]:
    for metric, key, kind, text in (
        ("braid_board_bytes_up_total", "bytes_up", "counter", "Bytes of bodies received from a board."),
        ("braid_board_bytes_down_total", "bytes_down", "counter", "Bytes of bodies sent to a board."),
        ("braid_board_updates_accepted_total", "accepted", "counter", "Updates of a board that were merged."),
        ("braid_board_updates_refused_total", "refused", "counter", "Updates of a board that were refused."),
        ("braid_board_tokens_per_second", "tokens_per_s", "gauge", "Training speed a board last reported."),
        ("braid_board_peak_bytes", "peak_bytes", "gauge", "Peak memory a board last reported."),
    ):
        yield from _metric(metric, kind, text)
        for board in boards:
            if board[key] is not None:
                yield f'{metric}{{device="{_label(board["device"])}",name="{_label(board["name"])}"}} {board[key]}'


def _guard_lines(guard: Mapping[str, Any]) -> Iterator[str]:
    yield from _metric("braid_connections", "gauge", "Connections that are open.")
    yield f"braid_connections {guard['connections']}"
    yield from _metric("braid_turned_away_total", "counter", "Connections and requests that were turned away, by kind.")
    for nuisance in guard["turned_away"]:
        yield f'braid_turned_away_total{{kind="{nuisance["kind"]}"}} {nuisance["count"]}'


def _loss_lines(newest: Mapping[str, Any]) -> Iterator[str]:
    yield from _metric("braid_held_out_loss", "gauge", "Loss on boards' held-out text, newest version evaluated.")
    for over in ("mean", "worst"):
        if newest[f"{over}_loss"] is not None:
            yield f'braid_held_out_loss{{over="{over}",version="{newest["version"]}"}} {newest[f"{over}_loss"]}'


def _metric(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _label(text: str) -> str:
    """A label's value: backslash, quote and line feed are escaped, as the format asks."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
