"""The state of a board in a few words, the same on the page and in the terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from braid_common.units import show_seconds

Tone = Literal["good", "bad", "quiet", ""]


def board_state(board: Mapping[str, Any]) -> tuple[str, Tone]:
    """The state of a board of `status.describe` in words, and how it is to be taken: a board whose work is done, or
    that was asked to stop, is no reason to worry."""
    if board["revoked"]:
        return "revoked", "bad"
    if board["has_left"]:
        return "left", "quiet"
    if board["finished"]:
        return "finished", "good"
    if ended := board["ended"]:
        ago = f"{show_seconds(round(ended['ago_s']))} ago"
        return (f"gave up {ago}", "bad") if ended["status"] else (f"stopped {ago}", "quiet")
    if not board["live"]:
        silent = "" if board["silent_s"] is None else f" for {show_seconds(round(board['silent_s']))}"
        return f"silent{silent}", "bad"
    return ("done, waiting", "good") if board["answered"] else (board["phase"] or "alive", "")


def why_it_gave_up(board: Mapping[str, Any]) -> str:
    """Why a board cannot go on, as it said itself, with its exit status; "" of any other board."""
    ended = board["ended"]
    if not ended or not ended["status"] or board["finished"]:
        return ""
    return f"{ended['reason']} (status {ended['status']})"


def why_copied(board: Mapping[str, Any]) -> str:
    """The sign that two clients have one identity; "" of any other board."""
    copies = board["copies"]
    return f"{copies['text']} Last {show_seconds(round(copies['ago_s']))} ago" if copies else ""


def how_it_counts(board: Mapping[str, Any]) -> str:
    """Words about a board that counts as less than it claims; "" of any other board."""
    claims, counts_as = board["claims"], board["counts_as"]
    if claims is None or not counts_as < claims:
        return ""
    besides = (" and its loss" if board["is_by_loss"] else "") + (" and its strands" if board["is_by_strands"] else "")
    what = f"its claim{besides} make" if besides else "it claims"
    return f"counts as {counts_as:,.0f} of the {claims:,.0f} examples that {what} (merge.max_weight)"


def run_is_over(run: Mapping[str, Any]) -> str:
    """The sentence about a run that is finished; "" while it goes on."""
    if run["state"] != "finished":
        return ""
    wait = "" if run["complete"] else "; boards still evaluate it"
    done = "its round is done" if run["rounds"] == 1 else f"all {run['rounds']} rounds are done"
    return f"the run is over: {done}, version {run['version']} is the result{wait}"
