"""Figures as words for people; a dash stands for what nobody has told. Pure."""

from __future__ import annotations

from braid_common.units import show_seconds, show_share, show_size

DASH = "–"

SCORE_WORDS = {
    "loss": "loss, nats per target token",
    "rouge1": "ROUGE-1, F1 in %",
    "rouge2": "ROUGE-2, F1 in %",
    "rougeL": "ROUGE-L, F1 in %",
    "exact_match": "exact match, % of the texts",
}
"""What each score is called."""


def score_word(score: str, value: float | None) -> str:
    """A score: a loss in nats, any other in percent."""
    if value is None:
        return DASH
    return f"{value:.3f}" if score == "loss" else f"{100 * value:.1f}"


def gain_word(score: str, value: float | None) -> str:
    """A gain with its sign."""
    if value is None:
        return DASH
    return f"{value:+.3f}" if score == "loss" else f"{100 * value:+.1f}"


def number(value: float | None, digits: int = 0) -> str:
    """A number with commas between thousands."""
    return DASH if value is None else f"{value:,.{digits}f}"


def size(value: float | None) -> str:
    """A size in bytes, with its unit."""
    return DASH if value is None else show_size(value)


def seconds(value: float | None) -> str:
    """A time, with its unit."""
    return DASH if value is None else show_seconds(value if value < 60 else round(value))


def share(value: float | None) -> str:
    """A part of a whole, in percent."""
    return DASH if value is None else show_share(value)
