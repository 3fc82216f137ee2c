"""The chapters on what went wrong and was survived, and on what was kept private. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from aggregator.report.whole_run.elements import Child, element, facts, name_of, table
from aggregator.report.whole_run.words import DASH, number

ALWAYS = (
    "Text stays on its board: what leaves one is its updates, sketches of gradients, and numbers such as those of this "
    "page. A version holds what the texts have taught; whoever has it has that."
)


def robustness(figures: Mapping[str, Any]) -> list[Element]:
    """Counts, reasons of refusals, losses, and the boards that something concerns."""
    found, labels = figures["robustness"], figures["boards"]
    tiles = facts(
        [
            ("accepted updates", number(found["accepted"]), ""),
            ("refused", number(found["refused"]), "updates and profiles"),
            ("late, counted", number(found["late"]), "on an older version"),
            ("lost", number(found["lost"]), "files of the server"),
            ("rounds missed", number(found["missed"]), "merged without a board"),
            ("rounds abandoned", number(found["abandoned_rounds"]), ""),
            ("boards gone", number(found["gave_up"] + found["left"] + found["revoked"]), _gone(found)),
        ]
    )
    rows: list[Sequence[Child]] = [
        [
            name_of(labels[device]),
            *(number(its[name]) for name in ("accepted", "refused", "late", "missed")),
            its["ended"] or DASH,
            its["why"] or DASH,
        ]
        for device, its in found["by_board"].items()
        if its["refused"] or its["late"] or its["missed"] or its["ended"]
    ]
    parts = [tiles]
    if rows:
        heads = ("board", "accepted", "refused", "late", "missed", "ended", "why")
        parts.append(table(heads, rows, texts=(5, 6)))
    if found["reasons"]:
        reasons = [[row["reason"], number(row["count"])] for row in found["reasons"]]
        parts += [element("h3", "Why updates were refused"), table(("reason", "times"), reasons)]
    if found["losses"]:
        parts += [element("h3", "What was lost"), element("ul", *(element("li", loss) for loss in found["losses"]))]
    return parts


def _gone(found: Mapping[str, Any]) -> str:
    return f"{found['gave_up']} gave up, {found['left']} left, {found['revoked']} revoked"


def privacy(figures: Mapping[str, Any]) -> list[Element]:
    """The budget that was spent, and what is on."""
    found = figures["privacy"]
    if found["epsilon"] is None:
        spent = (
            "No board says that it spends a budget of differential privacy: updates are sent as they are, without "
            "noise, and there is no bound on what one could tell of its board's text."
        )
    else:
        spent = (
            f"{found['boards_with_budget']} boards spend a budget of differential privacy: at most ε = "
            f"{found['epsilon']:.3g} so far."
        )
    bound = found["weight_bound"]
    held = f"a board counts as {bound:g} of the middle one at most" if bound else "boards count as they claim"
    return [element("p", ALWAYS), element("p", spent), element("p", f"Defence: {found['defence']}; {held}.")]
