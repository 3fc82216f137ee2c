"""Programmatic tasks have the answers that they claim."""

from __future__ import annotations

import json
import re

import pytest

from builtin_base.training.batches import Sources
from builtin_base.training.programmatic import exercises


@pytest.mark.parametrize(
    "name", [n for n in exercises.EXERCISES if n not in ("reverse", "order", "count", "remove", "look_or_take")]
)
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


def test_what_is_asked_beyond_the_item_is_looked_up(sources: Sources) -> None:
    """What is looked up stands in the request beside the item; where nothing does, the item is taken, once or as often
    as was said. Both are drawn."""
    values, looked_up = sources.drawer.values("test"), 0
    for _ in range(200):
        _, source, target = exercises.draw(values, "look_or_take")
        look, joint = re.findall(r"asked, (\S+) has \S+ \(joined by (\S+)\)", source)[0]
        (take,) = re.findall(r"else (\S+) has", source)
        tool, arguments = re.findall(r"^\w+: (\S+) (\{.*\})$", target)[0]
        request = re.findall(r"(?:user|human|customer|client|guest): (.*?) (?:call|tool|action|run|do): ", source)[0]
        item = json.loads(re.findall(r"\{.*?\}", source)[0])
        first, second = json.loads(arguments).values()
        assert tool in (look, take)
        if tool == look:
            looked_up += 1
            pieces = re.split(rf" ?{re.escape(joint)} ", first)
            assert all(piece in request and piece not in item.values() for piece in pieces)
        else:
            assert second == "1" or f"{second} {next(iter(item.values()))}" in request
    assert 60 < looked_up < 140
