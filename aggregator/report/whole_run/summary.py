"""The main figures of a report in a few lines, for the terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aggregator.report.whole_run.words import gain_word, number, score_word, seconds, size
from braid_common.units import printable


def summary(figures: Mapping[str, Any]) -> str:
    """Rounds, loss, gain, cost and trouble."""
    run, loss = figures["run"], figures["usefulness"]["loss"]
    model, gain = loss["subjects"]["global"], loss["gains"][0]
    traffic, spent, wrong = (figures[chapter] for chapter in ("communication", "time", "robustness"))
    lines = [
        f"{printable(run['name'])}: {run['merged_rounds']} of {run['rounds']} rounds, {len(figures['boards'])} boards",
        f"loss {score_word('loss', model['mean'])}, worst tenth {score_word('loss', model['worst_tenth'])}"
        f" ({model['boards']} boards); gained over the base {gain_word('loss', gain['mean'])},"
        f" {gain['losers']} of {gain['boards']} lose",
        f"{size(traffic['bytes_up'])} up, {size(traffic['bytes_down'])} down, {number(traffic['requests'])} requests;"
        f" {seconds(spent['rounds_s'])} in rounds",
        f"{wrong['refused']} refused, {wrong['late']} late, {wrong['lost']} lost, {wrong['missed']} rounds missed",
    ]
    return "\n".join(lines)
