"""A run's report as one page for people: its chapters in order, with nothing from elsewhere and no script. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree.ElementTree import Element, tostring

from aggregator.report.whole_run.chapters import costs, health, scores
from aggregator.report.whole_run.elements import element, facts
from aggregator.report.whole_run.style import STYLE
from aggregator.report.whole_run.words import DASH, gain_word, number, score_word, seconds, share, size

Figures = Mapping[str, Any]

CHAPTERS: tuple[tuple[str, Callable[[Figures], list[Element]]], ...] = (
    ("How useful is it?", scores.usefulness),
    ("Who counts how much?", scores.fairness),
    ("What went over the network?", costs.communication),
    ("Where did the time go?", costs.time_spent),
    ("How fast, and with how much memory?", costs.efficiency),
    ("What went wrong?", health.robustness),
    ("What was kept private?", health.privacy),
)
"""The chapters and what fills each; an empty one is left out."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page's own content security policy: a style of its own, and no script or address whatever."""


def page(figures: Figures) -> str:
    """The whole document, in HTML."""
    title = f"{figures['run']['name']} – a run of Braid"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
    )
    style = Element("style")
    style.text = STYLE
    head.append(style)
    body = element("body", *_head(figures))
    for heading, fill in CHAPTERS:
        if parts := fill(figures):
            body.append(element("h2", heading))
            body.extend(parts)
    whole = element("html", head, body, lang="en")
    return "<!doctype html>\n" + tostring(whole, encoding="unicode", method="html") + "\n"


def _head(figures: Figures) -> list[Element]:
    run, read_at = figures["run"], figures["time"]["read_at"]
    state = "finished" if run["finished"] else "still running"
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(read_at))
    settings = f"rule {run['rule']}, {run['mode']}, scope {run['scope']}, uploads in {run['upload']}"
    return [
        element("h1", element("bdi", run["name"]), " ", element("small", run["run_id"])),
        element(
            "p",
            f"{state}: {run['merged_rounds']} of {run['rounds']} rounds merged, version {run['version']}; base ",
            element("bdi", run["base"]),
            f"; {settings}; as of {moment}",
            class_="quiet",
        ),
        facts(_summary(figures)),
    ]


def _summary(figures: Figures) -> list[tuple[str, str, str]]:
    loss = figures["usefulness"]["loss"]
    model, gain = loss["subjects"]["global"], loss["gains"][0]
    traffic, spent, wrong = (figures[chapter] for chapter in ("communication", "time", "robustness"))
    version = DASH if loss["version"] is None else str(loss["version"])
    return [
        ("boards", number(len(figures["boards"])), f"{model['boards']} scored version {version}"),
        ("mean loss", score_word("loss", model["mean"]), f"worst tenth {score_word('loss', model['worst_tenth'])}"),
        ("gained over the base", gain_word("loss", gain["mean"]), f"{gain['losers']} of {gain['boards']} boards lose"),
        ("evenness of the loss", number(model["jain"], 3), "Jain's index, 1: all boards alike"),
        ("bytes", size(traffic["bytes_up"] + traffic["bytes_down"]), f"{number(traffic['requests'])} requests"),
        ("time", seconds(spent["profiling_s"] + spent["rounds_s"] + spent["between_rounds_s"]), _waited(spent)),
        (
            "updates",
            number(wrong["accepted"]),
            f"{wrong['refused']} refused, {wrong['late']} late, {wrong['lost']} lost",
        ),
    ]


def _waited(spent: Mapping[str, Any]) -> str:
    rounds_s = spent["rounds_s"]
    return f"{share(spent['waiting_s'] / rounds_s)} of its rounds waited for the slow half" if rounds_s else ""
