"""Rewards that a formula gives: overlap with the right answer, tool calls, length, and words that must or must not be
there. Pure; each from 0 to 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from edge_client.evaluation.metrics import ROUGE_KINDS, Rouge
from edge_client.evaluation.tool_calls import judge_calls, parse_calls
from edge_client.rewards.answer import JudgedAnswer

RIGHT_TOOL = 0.5
"""Reward of a call of the right tool with other arguments: halfway, so that a model finds the tool first."""


class Overlap:
    """ROUGE-L F1 with the nearest right answer."""

    def __init__(self) -> None:
        self._rouge = Rouge()

    def __call__(self, answers: Sequence[JudgedAnswer]) -> list[float]:
        place = ROUGE_KINDS.index("rougeL")
        return [self._rouge.f1(answer.targets, answer.text)[place] for answer in answers]


def tool_call_reward(answer: JudgedAnswer) -> float:
    """1 for the right calls, RIGHT_TOOL for the right tools alone, 0 for others; 1 for words where words are right."""
    verdict = judge_calls(answer.targets, answer.writable_targets, answer.text)
    if verdict is None:
        return float(not parse_calls(answer.text, after_words=True))
    return 1.0 if verdict.arguments else RIGHT_TOOL * verdict.name


def length_reward(text: str, at_least: int, at_most: int) -> float:
    """1 within the bounds, counted in words; outside them less by the share of the bound that is missing or too much,
    and 0 from twice the upper one on."""
    n_words = len(text.split())
    if n_words < at_least:
        return n_words / at_least
    return max(0.0, 1.0 - max(0, n_words - at_most) / at_most)


def words_reward(text: str, allow: tuple[str, ...], block: tuple[str, ...]) -> float:
    """0 where a phrase of `block` is in the text; else 1, if `allow` is empty or a phrase of it is. Phrases are whole
    words, in any case, with any white space between."""
    if block and _pattern(block).search(text):
        return 0.0
    return float(not allow or _pattern(allow).search(text) is not None)


@lru_cache(maxsize=64)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    choices = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)", re.IGNORECASE)
