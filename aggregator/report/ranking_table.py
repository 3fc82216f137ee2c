"""The ranking of `status.describe` as a short table of texts, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from braid_common.units import show_share

SHOWN_WEIGHTS = 8
"""Weights that are shown by name, the rest as one row; `aggregator status --json` has all of them."""


def title(ranking: Mapping[str, Any]) -> str:
    """The line above the table: the score, how many weights it ranks, and when it was last refreshed."""
    by = {"sketch": "gradient sketches", "magnitude_gradient": "magnitude·gradient", "adalora": "AdaLoRA's score"}
    how = by.get(ranking["importance"], ranking["importance"])
    return f"importance of {len(ranking['weights'])} weights by {how}, as of version {ranking['version']}"


def heads(ranking: Mapping[str, Any]) -> tuple[str, str, str]:
    """The line below the table, which explains its columns."""
    return "weight", "importance", f"strands that hold {show_share(ranking['worth_share'])} of it"


def rows(ranking: Mapping[str, Any]) -> list[list[str]]:
    """The first SHOWN_WEIGHTS weights and what the others have together."""
    weights = ranking["weights"]
    shown = [
        [weight["name"], show_share(weight["share"]), f"{weight['worth']} of {weight['strands']}"]
        for weight in weights[:SHOWN_WEIGHTS]
    ]
    if rest := weights[SHOWN_WEIGHTS:]:
        shown.append([f"… {len(rest)} more", show_share(sum(weight["share"] for weight in rest)), ""])
    return shown
