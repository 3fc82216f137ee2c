"""The chapters on costs: traffic, time, speed, energy and memory. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from aggregator.report.whole_run.elements import Child, element, facts, name_of, table
from aggregator.report.whole_run.plots import legend, stacked
from aggregator.report.whole_run.words import DASH, number, seconds, share, size

MAX_BARS = 40
"""Boards with a bar: those that were busy longest, when there are more."""

_PHASES = {"profiling_s": "until the first round", "rounds_s": "in rounds", "between_rounds_s": "between rounds"}
_PARTS = {"train_s": "training", "encode_s": "encoding", "evaluate_s": "evaluating", "other_s": "else"}


def communication(figures: Mapping[str, Any]) -> list[Element]:
    """Bytes, requests and rounds."""
    found, labels = figures["communication"], figures["boards"]
    tiles = facts(
        [
            ("sent by boards", size(found["bytes_up"]), "bodies alone"),
            ("sent to boards", size(found["bytes_down"]), "bodies alone"),
            ("requests", number(found["requests"]), ""),
            ("per merged round", size(found["bytes_per_merged_round"]), f"{found['merged_rounds']} rounds"),
            ("an update", size(found["update_bytes"]), f"mean of {found['updates']:,}"),
        ]
    )
    rows: list[Sequence[Child]] = [
        [
            name_of(labels[device]),
            size(its["bytes_up"]),
            size(its["bytes_down"]),
            number(its["requests"]),
            number(its["updates"]),
        ]
        for device, its in found["by_board"].items()
    ]
    heads = ("board", "up", "down", "requests", "updates")
    return [tiles, table(heads, rows)]


def time_spent(figures: Mapping[str, Any]) -> list[Element]:
    """The run's phases, the boards' work, and the rounds."""
    found, labels = figures["time"], figures["boards"]
    phases = {words: found[name] for name, words in _PHASES.items()}
    parts = [legend([(f"part{place}", words) for place, words in enumerate(phases)])]
    if (plot := stacked([("the run", phases)], seconds, "The run's time")) is not None:
        parts.append(plot)
    busiest = sorted(found["by_board"].items(), key=lambda each: -each[1]["whole_s"])[:MAX_BARS]
    rows = [(labels[device], {words: its[name] or 0.0 for name, words in _PARTS.items()}) for device, its in busiest]
    if (plot := stacked(rows, seconds, "The boards' time")) is not None:
        why = "From a board's enrolment to the last of its work; else is profiling, transfers, and waiting for others."
        keys = legend([(f"part{place}", words) for place, words in enumerate(_PARTS.values())])
        parts += [element("h3", "The boards' time"), element("p", why, class_="quiet"), keys, plot]
    return [*parts, element("h3", "Round by round"), _rounds(found["rounds"])]


def _rounds(rounds: Sequence[Mapping[str, Any]]) -> Element:
    heads = ("round", "state", "took", "middle to last answer", "accepted", "late", "refused", "why it closed")
    rows = [
        [
            str(row["round"]),
            row["state"],
            seconds(row["took_s"]),
            seconds(row["waiting_s"]),
            str(row["accepted"]),
            str(row["late"]),
            str(row["refused"]),
            row["reason"],
        ]
        for row in rounds
    ]
    return table(heads, rows, texts=(1, 7), is_last=True)


def efficiency(figures: Mapping[str, Any]) -> list[Element]:
    """Speed, energy and memory, the slowest board first."""
    found, labels = figures["efficiency"], figures["boards"]
    order = sorted(found["by_board"].items(), key=lambda each: each[1]["tokens_per_s"] or 0.0)
    rows: list[Sequence[Child]] = [
        [
            name_of(labels[device]),
            number(its["tokens_per_s"]),
            number(its["joules_per_token"], 3),
            size(its["peak_bytes"]),
            size(its["predicted_peak_bytes"]),
            share(its["peak_of_predicted"]),
            size(its["budget_bytes"]),
        ]
        for device, its in order
    ]
    heads = ("board", "tokens/s", "J/token", "peak", "predicted", "of it", "budget")
    above = found["above_prediction"]
    words = f"Boards that took more memory than their last plan had predicted: {above}." if above else ""
    mean = f"Mean over boards: {number(found['tokens_per_s'])} tokens/s"
    mean += f", {number(found['joules_per_token'], 3)} J/token." if found["joules_per_token"] is not None else "."
    note = [element("p", words, class_="bad")] if words else []
    energy = (
        []
        if found["joules_per_token"] is not None
        else [element("p", f"J/token is {DASH} for boards whose power cannot be read.", class_="quiet")]
    )
    return [element("p", mean), *note, table(heads, rows), *energy]
