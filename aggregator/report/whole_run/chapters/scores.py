"""The chapters on the model: how good it is for each board, what a board gains, and who counts how much. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from aggregator.report.whole_run.elements import element, name_of, table
from aggregator.report.whole_run.plots import MAX_LINES, Bar, Line, bars, legend, lines
from aggregator.report.whole_run.words import DASH, SCORE_WORDS, gain_word, number, score_word, share
from braid_common.metrics import SUBJECTS

MAX_BARS = 40
"""Boards with a bar: those that gain least, when there are more."""

WHAT_IT_IS = (
    "Each board scores on text that it holds back, and every board counts once. The worst tenth is the mean over the "
    "tenth of the boards that is worst off, one at least. Jain's index is 1 where all boards have the same, and 1 "
    "divided by their number where one has all. A dash is what no board has measured."
)

SUBJECT_WORDS = (
    "Base is the model without any adapter; alone, what a board has learnt from the base without a fleet; global, the "
    "version that the run has published; personal, that version with what a board has learnt for itself. Losers are "
    "the boards that are worse off than what they are compared with."
)


def usefulness(figures: Mapping[str, Any]) -> list[Element]:
    """Scores of every kind that some board has sent, their course, and the boards one by one."""
    found = figures["usefulness"]
    parts = [element("p", WHAT_IT_IS), element("p", SUBJECT_WORDS)]
    for score, its in found.items():
        if score == "loss" or any(subject["boards"] for subject in its["subjects"].values()):
            parts += [element("h3", _title(score, its)), _subjects(score, its)]
    loss = found["loss"]
    parts += _course(loss, figures["boards"])
    parts += _gains(loss, figures["boards"])
    return [*parts, element("h3", "Board by board"), _boards(found, figures["boards"])]


def fairness(figures: Mapping[str, Any]) -> list[Element]:
    """The effect of merge.fairness on weights; nothing where it is off."""
    found, labels = figures["fairness"], figures["boards"]
    if not found["q"]:
        return []
    rows = sorted(found["by_board"].items(), key=lambda row: row[1]["plain"] - row[1]["fair"])
    moved = [(labels[device], its["fair"] - its["plain"], its) for device, its in rows]
    drawn = [
        Bar(name, 100 * by, f"{share(its['plain'])} → {share(its['fair'])}", "gain" if by >= 0 else "plain")
        for name, by, its in moved
    ]
    plot = bars(drawn[:MAX_BARS], "What merge.fairness has changed of each board's weight")
    why = (
        f"merge.fairness = {found['q']:g}: a board whose loss is above the mean counts more, within merge.max_weight. "
        f"Each board's part of a round's weight, without → with it, as a mean over {len(found['rounds'])} rounds and "
        "before any defence."
    )
    return [element("p", why), *([plot] if plot is not None else [])]


def _title(score: str, its: Mapping[str, Any]) -> str:
    version = "" if its["version"] is None else f", version {its['version']}"
    return SCORE_WORDS[score][:1].upper() + SCORE_WORDS[score][1:] + version


def _subjects(score: str, its: Mapping[str, Any]) -> Element:
    heads = ["", "mean", "worst tenth", "worst", "best", "deviation", "Jain", "boards"]
    heads += [word for than in _COMPARED for word in (f"gain over {than}", "losers")]
    gains = {(gain["subject"], gain["over"]): gain for gain in its["gains"] if gain["boards"]}
    rows = []
    for subject in SUBJECTS:
        figures = its["subjects"][subject]
        numbers = [score_word(score, figures[name]) for name in ("mean", "worst_tenth", "worst", "best", "deviation")]
        gained = []
        for than in _COMPARED:
            gain = gains.get((subject, than))
            gained += (
                [gain_word(score, gain["mean"]), f"{gain['losers']} of {gain['boards']}"] if gain else [DASH, DASH]
            )
        rows.append([subject, *numbers, number(figures["jain"], 3), str(figures["boards"]), *gained])
    return table(heads, rows)


_COMPARED = ("base", "alone")


def _course(loss: Mapping[str, Any], labels: Mapping[str, str]) -> list[Element]:
    """The loss over versions: the mean, the worst tenth, and each board where they are few."""
    course = loss["course"]
    devices = sorted({device for point in course for device in point["by_board"]})
    drawn = [
        Line(
            labels[device], "board", [(p["version"], p["by_board"][device]) for p in course if device in p["by_board"]]
        )
        for device in devices[:MAX_LINES]
    ]
    drawn += [
        Line("worst tenth", "worst", [(point["version"], point["worst_tenth"]) for point in course]),
        Line("mean", "mean", [(point["version"], point["mean"]) for point in course]),
    ]
    plot = lines(drawn, "version", "Loss on held-out text over versions", lambda y: f"{y:.2f}")
    if plot is None:
        return []
    keys = legend([("mean", "mean over boards"), ("worst", "worst tenth"), ("board", "each board")])
    return [element("h3", "Loss over versions"), keys, plot]


def _gains(loss: Mapping[str, Any], labels: Mapping[str, str]) -> list[Element]:
    """A bar for each board: how much better one model is for it than another, where both are known."""
    parts = []
    for gain in loss["gains"]:
        if gain["subject"] != "global" and gain["over"] != "global":
            continue
        least_first = sorted(gain["by_board"].items(), key=lambda each: each[1])
        drawn = [
            Bar(labels[device], value, gain_word("loss", value), "loser" if value < 0 else "gain")
            for device, value in least_first[:MAX_BARS]
        ]
        title = f"What each board gains: {gain['subject']} over {gain['over']}, nats"
        if (plot := bars(drawn, title)) is not None:
            parts += [element("h3", title), legend([("gain", "gains"), ("loser", "loses")]), plot]
    return parts


def _boards(found: Mapping[str, Any], labels: Mapping[str, str]) -> Element:
    """The boards' scores, those with the highest loss first."""
    columns = [
        (score, subject) for score, its in found.items() for subject in SUBJECTS if its["subjects"][subject]["boards"]
    ]
    losses = found["loss"]["subjects"]["global"]["by_board"]
    order = sorted(labels, key=lambda device: -losses.get(device, -1.0))
    rows: list[Sequence[Element | str]] = [
        [
            name_of(labels[device]),
            *(
                score_word(score, found[score]["subjects"][subject]["by_board"].get(device))
                for score, subject in columns
            ),
        ]
        for device in order
    ]
    heads = ["board", *(f"{_SHORT[score]} {subject}" for score, subject in columns)]
    return table(heads, rows)


_SHORT = {"loss": "loss", "rouge1": "R-1", "rouge2": "R-2", "rougeL": "R-L", "exact_match": "exact"}
