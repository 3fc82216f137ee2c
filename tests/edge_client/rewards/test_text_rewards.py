"""Rewards that a formula gives."""

from __future__ import annotations

import pytest

from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.text_rewards import RIGHT_TOOL, Overlap, length_reward, tool_call_reward, words_reward


def judged(text: str, *targets: str, writable: tuple[str, ...] = ()) -> JudgedAnswer:
    return JudgedAnswer("a source", targets, writable or targets, text)


def test_overlap_is_that_with_the_nearest_right_answer() -> None:
    """ROUGE-L's F1, 1 for the same words and 0 for none."""
    answers = [judged("one tall latte", "a tea", "one tall latte"), judged("one tea", "a tea"), judged("no", "a tea")]

    assert Overlap()(answers) == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("written", "reward"),
    [
        ('call: add_item {"id": "tea-1", "n": 2}', 1.0),
        ('call: add_item {"n": 2.0, "id": "tea-1"}', 1.0),
        ('call: add_item {"id": "tea-2", "n": 2}', RIGHT_TOOL),
        ("call: add_item {broken", RIGHT_TOOL),
        ('call: drop_item {"id": "tea-1", "n": 2}', 0.0),
        ("say: two teas", 0.0),
        ("", 0.0),
    ],
)
def test_a_call_is_judged_by_tool_and_arguments(written: str, reward: float) -> None:
    """As the evaluation judges it; the right tool alone is halfway."""
    assert tool_call_reward(judged(written, 'call: add_item {"id": "tea-1", "n": 2}')) == reward


def test_where_words_are_right_a_call_is_wrong() -> None:
    """Else a model that calls a tool always would never lose by it."""
    assert tool_call_reward(judged("say: anything", "say: which size?")) == 1.0
    assert tool_call_reward(judged("well call: add_item {}", "say: which size?")) == 0.0


@pytest.mark.parametrize(
    ("n_words", "reward"), [(0, 0.0), (1, 0.25), (4, 1.0), (10, 1.0), (15, 0.5), (20, 0.0), (99, 0.0)]
)
def test_length_counts_less_the_farther_it_is(n_words: int, reward: float) -> None:
    assert length_reward("word " * n_words, 4, 10) == pytest.approx(reward)


def test_words_are_whole_ones_in_any_case() -> None:
    """A blocked "ass" does not forbid a "glass"."""
    assert words_reward("A glass of tea", (), ("ass", "free of charge")) == 1.0
    assert words_reward("It is FREE  of\ncharge.", (), ("ass", "free of charge")) == 0.0
    assert words_reward("a+b", (), ("a+b",)) == 0.0


def test_one_allowed_phrase_is_enough_and_a_blocked_one_outweighs_it() -> None:
    assert words_reward("certainly, a tea", ("please", "certainly"), ()) == 1.0
    assert words_reward("a tea", ("please", "certainly"), ()) == 0.0
    assert words_reward("certainly, a beer", ("certainly",), ("beer",)) == 0.0
