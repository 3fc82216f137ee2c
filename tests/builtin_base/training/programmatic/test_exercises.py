"""Programmatic tasks have the answers that they claim."""

from __future__ import annotations

import re

import pytest

from builtin_base.training.batches import Sources
from builtin_base.training.programmatic import exercises


@pytest.mark.parametrize("name", [n for n in exercises.EXERCISES if n not in ("reverse", "order", "count", "remove")])
def test_answer_stands_in_source(name: str, sources: Sources) -> None:
    """What is to be copied can be copied: every word of the answer that is not form stands in the source."""
    values = sources.drawer.values("test", name)
    for _ in range(40):
        _, source, target = exercises.draw(values, name)
        missing = [word for word in re.findall(r"\w+", target) if word not in source]
        assert set(missing) <= {"is", "done", "call"}, (source, target)


def test_sorting_and_counting(sources: Sources) -> None:
    """Sorted words are the source's in order; a count is the number of items."""
    values = sources.drawer.values("test")
    for _ in range(50):
        _, source, target = exercises.draw(values, "order")
        items = source.removeprefix("sort: ").split()
        key = int if items[0].isdigit() and all(i.isdigit() for i in items) else str
        assert target.split() == sorted(items, key=key)
        _, source, target = exercises.draw(values, "count")
        if source.startswith("how many items? "):
            assert int(target) == source.count(";") + 1


def test_words_backwards_and_left_out(sources: Sources) -> None:
    """Reversed words read backwards give the source; a list without a word lacks it, or has another in its place."""
    values = sources.drawer.values("test")
    for _ in range(50):
        _, source, target = exercises.draw(values, "reverse")
        assert target.split()[::-1] == source.removeprefix("reverse: ").split()
        _, source, target = exercises.draw(values, "remove")
        order, _, items = source.partition(": ")
        verb, word, *new = order.split()
        if verb == "without":
            assert target.split() == [item for item in items.split() if item != word]
        else:
            assert target.split() == [new[-1] if item == word else item for item in items.split()]
