"""Numbers that compare an answer's words with its source's."""

from __future__ import annotations

import math

import pytest

from edge_client.rewards.wording import N_NUMBERS, wording

SOURCE = "say: What can I get for you?\nuser: a large Latte, please"


def test_each_number_is_what_it_says() -> None:
    assert wording(SOURCE, 'add Latte "large latte" "latte large" please') == pytest.approx(
        (
            6 / 7,  # all but "add"
            6 / 7,
            1 / 6,  # large latte
            3 / 5,  # large, latte, please; not user, a
            math.log(2),
            math.log(8),
            4 / 7,
            1 / 2,  # the source has "large latte" and not "latte large"
            1.0,
        )
    )


@pytest.mark.parametrize("source", ["", SOURCE, '"'])
@pytest.mark.parametrize("answer", ["", " ", "…", 'call: x {"a": ""}', '"' * 9, "é" * 1000])
def test_whatever_is_written_gives_finite_numbers(source: str, answer: str) -> None:
    numbers = wording(source, answer)

    assert len(numbers) == N_NUMBERS
    assert all(0 <= number < 10 for number in numbers)


def test_arguments_that_nobody_named_show() -> None:
    """What is in quotes is looked for whole, and in any case."""
    named, made_up = (wording(SOURCE, f'call: get {{"query": "{text}"}}') for text in ("LATTE", "mocha"))

    assert (named[7], made_up[7]) == (1 / 2, 0.0)
    assert named[7] > made_up[7]
